"""Routes of the worker API, below `/api/v1/`."""

from django.urls import URLPattern, path

from workers.api import (
    environments,
    heartbeats,
    keys,
    organizations,
    queues,
    starts,
    task_queues,
    update_locks,
    workers,
)
from workers.api.connections import views_of
from workers.fleet.kinds import CONNECTIONS, Kind

QUEUE = "worker-queues/<str:queue_id>"
ENVIRONMENT = "environments/<str:environment_id>"
WORKER = "workers/<str:worker_id>"

API_KEY = "api-keys/<str:key_id>"


def connection_paths(kind: Kind) -> list[URLPattern]:
    """The routes of one kind of connection: `temporal-connections` and the like."""
    plural = kind.name.replace("_", "-").removesuffix("s") + "s"
    listed, one, verify = views_of(kind)
    path_of_one = f"{plural}/<str:connection_id>"
    return [
        path(plural, listed.as_view()),
        path(path_of_one, one.as_view()),
        path(f"{path_of_one}/verify", verify.as_view()),
    ]


urlpatterns = [
    path(f"{WORKER}/heartbeat", heartbeats.HeartbeatView.as_view()),  # what is called most is met first
    path(f"{WORKER}/start", starts.StartWorkerView.as_view()),
    path("workers/register", starts.RegisterWorkerView.as_view()),
    path("workers/heartbeat", heartbeats.SimpleHeartbeatView.as_view()),
    path(f"{WORKER}/disconnect", heartbeats.DisconnectView.as_view()),
    path("worker-queues", queues.QueuesView.as_view()),
    path(QUEUE, queues.QueueView.as_view()),
    path(f"{QUEUE}/start", starts.StartInQueueView.as_view()),
    path(f"{QUEUE}/workers", queues.QueueWorkersView.as_view()),
    path(f"{QUEUE}/config", queues.QueueConfigView.as_view()),
    path(f"{QUEUE}/metrics", queues.QueueMetricsView.as_view()),
    path(f"{QUEUE}/worker-command", queues.WorkerCommandView.as_view()),
    path(f"{QUEUE}/install-script", queues.InstallScriptView.as_view()),
    path(f"{QUEUE}/update-lock-status", update_locks.UpdateLockStatusView.as_view()),
    path(f"{QUEUE}/workers/<path:worker_id>/update-lock", update_locks.UpdateLockView.as_view()),
    path("environments", environments.EnvironmentsView.as_view()),
    path(ENVIRONMENT, environments.EnvironmentView.as_view()),
    path(f"{ENVIRONMENT}/worker-queues", queues.EnvironmentQueuesView.as_view()),
    path(f"{ENVIRONMENT}/worker-command", environments.EnvironmentCommandView.as_view()),
    path("workers", task_queues.TaskQueuesView.as_view()),
    path("workers/<str:runner_name>", task_queues.TaskQueueView.as_view()),
    path("registered-workers", workers.WorkersView.as_view()),
    path("registered-workers/<str:worker_id>", workers.WorkerView.as_view()),
    path("api-keys", keys.KeysView.as_view()),
    path(API_KEY, keys.KeyView.as_view()),
    path(f"{API_KEY}/rotate", keys.RotateView.as_view()),
    path(f"{API_KEY}/revoke", keys.RevokeView.as_view()),
    path("organization", organizations.OrganizationView.as_view()),
    path("members", organizations.MembersView.as_view()),
    *(route for kind in CONNECTIONS.values() for route in connection_paths(kind)),
]
