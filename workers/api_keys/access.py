"""What an API key reaches: the objects of its organization, and of those the ones within its scope."""

from uuid import UUID

from django.db.models import Q, QuerySet

from environments.models import Environment
from workers.models import ApiKey, Scope, Worker, WorkerQueue
from workers.models.api_keys import ApiKeyQuerySet


class UnknownObjectError(Exception):
    """No object of this id in the key's organization; whether another organization has it is not told."""


class KeyOutOfScopeError(Exception):
    """The API key is of the object's organization, but not for this object."""


def reach[Row: (Environment, WorkerQueue, Worker)](rows: QuerySet[Row], identifier: UUID, api_key: ApiKey) -> Row:
    """The row of this id, if it is for the key; a worker has to be loaded with its queue.

    UnknownObjectError for what is not in the key's organization, KeyOutOfScopeError for what is beyond its scope.
    """
    return permit(rows.filter(organization=api_key.organization_id, pk=identifier).first(), api_key)


def permit[Row: (Environment, WorkerQueue, Worker)](row: Row | None, api_key: ApiKey) -> Row:
    """The row that was found in the key's organization, if there is one and it is for the key; errors as above."""
    if row is None:
        raise UnknownObjectError
    if not api_key.covers(row):
        raise KeyOutOfScopeError
    return row


def environments_covered_by(api_key: ApiKey) -> QuerySet[Environment]:
    """The environments within the key's scope; none for the key of a queue or a worker, as `ApiKey.covers` has it."""
    if api_key.worker_id or api_key.queue_id:
        return Environment.objects.none()
    environments = Environment.objects.filter(organization=api_key.organization_id)
    return environments.filter(pk=api_key.environment_id) if api_key.environment_id else environments


def keys_within(api_key: ApiKey) -> ApiKeyQuerySet:
    """The API keys whose target is within the key's scope, itself among them."""
    keys = ApiKey.objects.filter(organization=api_key.organization_id)
    within = {
        Scope.ORGANIZATION: Q(),
        Scope.ENVIRONMENT: Q(environment=api_key.environment_id)
        | Q(queue__environment=api_key.environment_id)
        | Q(worker__queue__environment=api_key.environment_id),
        Scope.QUEUE: Q(queue=api_key.queue_id) | Q(worker__queue=api_key.queue_id),
        Scope.WORKER: Q(worker=api_key.worker_id),
    }
    return keys.filter(within[Scope(api_key.scope)])


def name_within(environment_name: str, organization_id: str) -> str:
    """The environment's own name: clients know it as `environment` or as `organization.environment`."""
    return environment_name.removeprefix(f"{organization_id}.")
