"""How a worker of an environment is started with the existing command line."""

import shlex

from django.conf import settings

from environments.models import Environment
from workers.models import WorkerQueue

#: The queue that is meant where an environment alone is named.
DEFAULT_QUEUE = "default"


class NoDefaultQueueError(Exception):
    """The environment has no queue for those who know only the environment."""


def environment_command(environment: Environment) -> dict[str, str]:
    """Texts alone: that client reads no other values. NoDefaultQueueError without a queue `default`."""
    queue = WorkerQueue.objects.filter(environment=environment, name=DEFAULT_QUEUE).first()
    if queue is None:
        msg = f"This environment has no worker queue named {DEFAULT_QUEUE}."
        raise NoDefaultQueueError(msg)
    url = settings.CONTROL_PLANE_URL
    words = ["kubiya", "worker", "start", f"--queue-id={queue.pk}", f"--control-plane-url={url}"]
    return {"environment_name": environment.name, "command": shlex.join(words), "namespace_status": "ready"}
