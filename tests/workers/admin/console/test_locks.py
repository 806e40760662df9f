"""What somebody changes or deletes is locked by itself: not with what its order goes by, which others refer to."""

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from tests.support import factories
from tests.support.console import form_of, person, post_confirmed, signed_in, url
from tests.support.factories import Fleet

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one lock for all rows")


def rows_of(fleet: Fleet) -> dict[str, Any]:
    environment = factories.create_environment(fleet.organization, "empty")
    return {
        "environment": environment,
        "queue": factories.create_queue(environment, "empty"),
        "worker": factories.create_worker(fleet.queue, "empty"),
        "connection": factories.create_temporal(fleet.organization, "spare"),
    }


@pytest.mark.parametrize("page", ["change", "delete"])
@pytest.mark.parametrize("kind", ["environment", "queue", "worker", "connection"])
def test_a_row_is_locked_without_others(kind: str, page: str, fleet: Fleet) -> None:
    row, client = rows_of(fleet)[kind], signed_in(person(is_staff=True, is_superuser=True))
    if kind == "environment" and page == "delete":
        row = factories.create_environment(fleet.organization, "unused")
    address = url(type(row), page, row.pk)
    data = {"post": "yes"} if page == "delete" else form_of(client, address) | {"description": "another"}
    with CaptureQueriesContext(connection) as asked:
        assert post_confirmed(client, address, data).status_code == 302
    locking = [each["sql"] for each in asked.captured_queries if " FOR " in each["sql"].rpartition("WHERE")[2]]
    assert [sql for sql in locking if f'"{type(row)._meta.db_table}"' in sql]
    assert [sql for sql in locking if " JOIN " in sql] == []
