"""The ledger of one worker or one key is read by that one's index, whatever the database makes of its figures."""

import pytest
from django.db import connection, models
from django.db.models import OuterRef, Subquery

from tests.support.factories import Fleet
from workers.admin.workers.start_history import starts_of
from workers.models import ApiKey, WorkerStart

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL tells its plan")


def last_of_keys(_fleet: Fleet) -> models.QuerySet[ApiKey, tuple[object, ...]]:
    own = WorkerStart.objects.owned_by(OuterRef("organization")).filter(api_key=OuterRef("pk"))
    return ApiKey.objects.values_list("pk", Subquery(own.order_by("-started_at").values("started_at")[:1]))


def history(fleet: Fleet) -> models.QuerySet[WorkerStart]:
    return starts_of(fleet.worker.pk, fleet.organization.pk)


@pytest.mark.parametrize("read", [last_of_keys, history])
def test_all_starts_of_an_organization_are_never_read_for_one_of_them(read: object, fleet: Fleet) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP INDEX workers_start_of_key, workers_start_of_worker, workers_start_newest")
        cursor.execute("SET LOCAL enable_seqscan = off")
        plan = str(read(fleet).explain())  # type: ignore[operator]  # a function
    assert "workers_start_of_tenant" not in plan
    assert "workers_workerstart" in plan
