"""Registrations: starts of workers that know only their environment."""

from environments.models import Environment
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError, name_within
from workers.lifecycle.starts import Attempt, Started, StartRefusedError, start_in_queue
from workers.models import ApiKey, WorkerQueue

#: The queue that a registering worker joins.
DEFAULT_QUEUE = "default"


def register_worker(environment_name: str, attempt: Attempt) -> Started:
    """Makes a worker in the queue `default` of an environment, given as `environment` or `organization.environment`."""
    return start_in_queue(_default_queue(environment_name, attempt.api_key).pk, attempt)


def _default_queue(environment_name: str, api_key: ApiKey) -> WorkerQueue:
    name = name_within(environment_name, api_key.organization_id)
    environment = Environment.objects.filter(organization=api_key.organization_id, name=name).first()
    if environment is None:
        raise UnknownObjectError
    queue = WorkerQueue.objects.filter(environment=environment, name=DEFAULT_QUEUE).first()
    if not api_key.covers(queue or environment):
        raise KeyOutOfScopeError
    if queue is None:
        msg = f"This environment has no worker queue named {DEFAULT_QUEUE}."
        raise StartRefusedError(msg)
    return queue
