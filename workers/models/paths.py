"""Names of queues and workers from the organization on, as commands take and print them: acme/production/default/w1."""

from django.db.models import QuerySet

from workers.models import Worker, WorkerQueue

#: The lookups from a worker to the parts of its path.
PATH = ("organization_id", "queue__environment__name", "queue__name", "name")


def queues_at(path: str) -> QuerySet[WorkerQueue]:
    """The queue of organization/environment/queue; none for anything else."""
    return WorkerQueue.objects.filter(**_lookups(path, ("organization_id", "environment__name", "name")))


def workers_at(path: str) -> QuerySet[Worker]:
    """The worker of organization/environment/queue/worker; none for anything else."""
    return Worker.objects.filter(**_lookups(path, PATH))


def _lookups(path: str, names: tuple[str, ...]) -> dict[str, object]:
    parts = path.split("/")
    if len(parts) != len(names) or "\0" in path:
        return {"pk__in": ()}
    return dict(zip(names, parts, strict=True))
