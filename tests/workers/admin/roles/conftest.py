"""Organizations with people in each role."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import transaction

from environments.models import Membership
from tests.support.console import form_of, person, signed_in, url
from tests.support.roles import CALLERS, CHANGES, MAUVE, OCHRE, OUTSIDERS, ROLES, Tenant, build


@pytest.fixture(scope="module")
def built(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, Tenant]]:
    """Both organizations, built once; each test's own transaction lies within this one."""
    whole: Any = transaction.atomic()
    whole._from_testcase = True  # or else nothing could be durable within
    with django_db_blocker.unblock(), whole:
        people = {name: person(name, is_staff=True, is_superuser=name == "superuser") for name in CALLERS}
        for name, fields in OUTSIDERS.items():
            person(name, **fields)
        tenants = {name: build(name) for name in (MAUVE, OCHRE)}
        role_names = {rank: name for name, rank in ROLES.items()}
        for name, ranks in CALLERS.items():
            for organization_id, rank in ranks.items():
                if rank in role_names:
                    Membership.objects.create(organization_id=organization_id, user=people[name], role=role_names[rank])
        visitor = signed_in(people["superuser"])
        for tenant in tenants.values():
            tenant.forms = {model: form_of(visitor, url(model, "change", tenant.of(model).pk)) for model in CHANGES}
        yield tenants
        transaction.set_rollback(True)


@pytest.fixture
def tenants(built: dict[str, Tenant], db: None) -> dict[str, Tenant]:
    cache.clear()
    return built
