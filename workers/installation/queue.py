"""How a worker of a queue is installed and started: as one command, or as a text for where it is to run."""

import shlex
import sys
from dataclasses import dataclass
from typing import Any

import yaml
from django.conf import settings
from django.db import models
from django.template import Context, Engine

from workers.configuration.effective import sections_of
from workers.models import Worker, WorkerQueue

#: The existing worker, as the Python Package Index has it.
WORKER_PACKAGE = "kubiya-control-plane-api"
WORKER_PACKAGE_VERSION = "1.0.2"
#: What that release calls itself when it starts; it warns of a control plane that answers another version.
WORKER_SDK_VERSION = "0.6.0"
PROGRAM = "kubiya-control-plane-worker"
#: It needs greenlet, which not every SQLAlchemy brings along.
REQUIREMENTS = (f"{WORKER_PACKAGE}[worker]=={WORKER_PACKAGE_VERSION}", "sqlalchemy[asyncio]")
#: The other packages are those of the days of its release, since it does not start with every newer one.
PACKAGES_UNTIL = "2026-02-14"
PYTHON_VERSIONS = ">=3.10,<3.14"
#: Not the slim one: psutil, of the release that the worker asks for, has to be compiled on ARM.
IMAGE = "python:3.12"
#: The worker leaves TLS out if this variable begins so; it connects to the host it is given at its start all the same.
WITHOUT_TLS = {"TEMPORAL_HOST": "temporal:"}
#: Names in a cluster have at most 63 characters, of which pods want some for themselves.
QUEUE_IN_NAME = 38


#: The gauge of the tasks that wait for a queue, and how many of them may wait for each worker.
BACKLOG_METRIC, TASKS_FOR_EACH = "controlplane_queue_backlog", 10
#: How many workers there are at most where the queue has no limit.
MOST_REPLICAS = 10


class DeploymentType(models.TextChoices):
    """Where a worker is to run, or what scales those that run in a cluster."""

    LOCAL = "local"
    DOCKER = "docker"
    KUBERNETES = "kubernetes"
    OPENSHIFT = "openshift", "OpenShift"
    KEDA = "keda", "KEDA"
    HPA = "hpa", "HPA"


#: What starts no worker, but scales the Deployment of another text.
SCALERS = (DeploymentType.KEDA, DeploymentType.HPA)
TEMPLATES = {
    DeploymentType.LOCAL: "local.sh",
    DeploymentType.DOCKER: "docker.sh",
    DeploymentType.KUBERNETES: "deployment.yaml",
    DeploymentType.OPENSHIFT: "deployment.yaml",
    DeploymentType.KEDA: "keda.yaml",
    DeploymentType.HPA: "hpa.yaml",
}
#: What is installed, as every template may want to tell it.
PACKAGES = {
    "package": WORKER_PACKAGE,
    "version": WORKER_PACKAGE_VERSION,
    "program": PROGRAM,
    "requirements": REQUIREMENTS,
    "packages_until": PACKAGES_UNTIL,
}


@dataclass(frozen=True)
class WorkerCommand:
    """A shell line that starts a worker, and what it is made of: environment variables, and the program with arguments.

    The API key is in neither: the worker takes it from `KUBIYA_API_KEY`.
    """

    command: str
    parts: dict[str, str]


def worker_command(queue: WorkerQueue) -> WorkerCommand:
    """Starts a worker of the queue on any machine that has uv.

    What more than `environment` is loaded of the queue's chain saves statements.
    """
    environment = _environment(queue)
    program = shlex.join(_program())
    assignments = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    command = " ".join(['KUBIYA_API_KEY="$KUBIYA_API_KEY"', *assignments, program])
    return WorkerCommand(command, {**environment, "program": program})


def install_script(queue: WorkerQueue, deployment_type: DeploymentType) -> str:
    """A script or manifest that installs the worker and starts one of the queue, or that scales it; without secrets."""
    return _render(TEMPLATES[deployment_type], _context(queue, deployment_type))


def _environment(queue: WorkerQueue) -> dict[str, str]:
    """The variables that a worker of the queue is started with, but for its API key."""
    variables = {
        "CONTROL_PLANE_URL": settings.CONTROL_PLANE_URL,
        "QUEUE_ID": str(queue.pk),
        "HEARTBEAT_INTERVAL": str(queue.heartbeat_interval),
    }
    temporal = sections_of(Worker(queue=queue, organization=queue.organization)).temporal.row
    return variables if temporal is None or temporal.is_tls_enabled else variables | WITHOUT_TLS


def _program() -> list[str]:
    with_others = [argument for requirement in REQUIREMENTS[1:] for argument in ("--with", requirement)]
    chosen = ["--python", PYTHON_VERSIONS, "--exclude-newer", PACKAGES_UNTIL]
    return ["uvx", *chosen, "--from", REQUIREMENTS[0], *with_others, PROGRAM]


def _context(queue: WorkerQueue, deployment_type: DeploymentType) -> dict[str, Any]:
    """What fills the templates: names that are slugs, our own constants, and values quoted for their place."""
    quote = shlex.quote if TEMPLATES[deployment_type].endswith(".sh") else _yaml
    container_script = _render("container.sh", PACKAGES).strip()
    is_openshift = deployment_type == DeploymentType.OPENSHIFT
    return PACKAGES | {
        "task_queue": queue.task_queue_name,
        "name": f"worker-{queue.name[:QUEUE_IN_NAME]}-{str(queue.pk)[:8]}",
        "environment": [(name, quote(value)) for name, value in _environment(queue).items()],
        "image": IMAGE,
        "container_script": shlex.quote(container_script),
        "container_lines": container_script.splitlines(),
        "is_this_machine_only": settings.IS_LOCAL,
        "is_openshift": is_openshift,
        "client": "oc" if is_openshift else "kubectl",
        "most_replicas": queue.max_workers or MOST_REPLICAS,
        "backlog_metric": BACKLOG_METRIC,
        "backlog_labels": [(name, _yaml(value)) for name, value in _labels(queue).items()],
        "backlog_query": _yaml(_backlog_query(queue)),
        "tasks_for_each": TASKS_FOR_EACH,
    }


def _labels(queue: WorkerQueue) -> dict[str, str]:
    """How figures name the queue; all are slugs, which need no quoting in a query."""
    return {"organization": queue.organization_id, "environment": queue.environment.name, "queue": queue.name}


def _backlog_query(queue: WorkerQueue) -> str:
    """Whichever machine tells it, the figure is the same."""
    labels = ",".join(f'{name}="{value}"' for name, value in _labels(queue).items())
    return f"max({BACKLOG_METRIC}{{{labels}}})"


def _yaml(text: str) -> str:
    """The text as a scalar that YAML takes for nothing else."""
    return yaml.safe_dump(text, default_style='"', width=sys.maxsize).strip()


def _render(name: str, context: dict[str, Any]) -> str:
    """Renders without HTML's escaping, which would spoil the texts: whatever needs quoting has been quoted."""
    template = Engine.get_default().get_template(f"installation/{name}")
    return f"{template.render(Context(context, autoescape=False)).strip()}\n"
