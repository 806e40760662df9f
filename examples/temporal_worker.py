"""The smallest honest worker: start, connect, heartbeat, poll, run one workflow, say goodbye.

It knows only three things, from its environment: CONTROL_PLANE_URL, WORKER_ID and API_KEY. Temporal's TLS is on unless
TEMPORAL_TLS=false, as for a local Temporal dev server.
"""

import asyncio
import gc
import http
import json
import os
import platform
import socket
import sys
import urllib.error
import urllib.request
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

#: Host and process id also tell this process from another one of the same worker.
SYSTEM_INFO = {
    "hostname": socket.gethostname(),
    "pid": os.getpid(),
    "os_name": platform.system(),
    "os_version": platform.release(),
    "python_version": platform.python_version(),
    "cpu_count": os.cpu_count(),
}


@activity.defn
async def greet(name: str) -> str:
    """Does the work; this is the part to replace."""
    return f"Hello, {name}!"


@workflow.defn
class Greeting:
    """Calls the activity."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Returns the greeting."""
        return await workflow.execute_activity(greet, name, start_to_close_timeout=timedelta(seconds=10))


def start() -> Any:
    """Tells the control plane about this machine and gets the complete configuration."""
    try:
        return call("start", {"system_info": SYSTEM_INFO})
    except urllib.error.HTTPError as error:
        sys.exit(f"The control plane refused the start: {error.code} {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"The control plane cannot be reached at {os.environ['CONTROL_PLANE_URL']}: {error.reason}")


async def keep_heartbeating(interval: int) -> None:
    """Tells the control plane every interval that this process lives; ends it when a person or a newer one says so."""
    while True:
        try:
            await asyncio.to_thread(call, "heartbeat", {"status": "active"})
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.CONFLICT:
                sys.exit(f"The control plane ends this worker: {error.read().decode()}")
            print(f"Heartbeat refused: {error.code}", file=sys.stderr)
        except urllib.error.URLError as error:
            print(f"Heartbeat not delivered, trying again in {interval} s: {error.reason}", file=sys.stderr)
        await asyncio.sleep(interval)


def call(verb: str, body: dict[str, Any]) -> Any:
    """POSTs to the worker's address at the control plane; the answer's JSON, None without one."""
    request = urllib.request.Request(
        f"{os.environ['CONTROL_PLANE_URL']}/api/v1/workers/{os.environ['WORKER_ID']}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {os.environ['API_KEY']}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read() or "null")


async def main() -> None:
    """Runs one workflow on the task queue that the control plane names."""
    missing = [name for name in ("CONTROL_PLANE_URL", "WORKER_ID", "API_KEY") if not os.environ.get(name)]
    if missing:
        sys.exit(f"Set {', '.join(missing)}.")
    configuration = start()
    print(f"Started as worker {configuration['worker_id']} of queue {configuration['worker_queue_name']}.")
    try:
        client = await Client.connect(
            configuration["temporal_host"],
            namespace=configuration["temporal_namespace"],
            api_key=configuration["temporal_api_key"] or None,
            tls=os.environ.get("TEMPORAL_TLS", "true").lower() != "false",
        )
    except RuntimeError as error:
        sys.exit(f"Temporal cannot be reached at {configuration['temporal_host']}: {error}")
    task_queue = configuration["task_queue_name"]
    async with Worker(client, task_queue=task_queue, workflows=[Greeting], activities=[greet]):
        heartbeats = asyncio.create_task(keep_heartbeating(configuration["heartbeat_interval"]))
        print(f"Polling {task_queue} in namespace {configuration['temporal_namespace']}.")
        result = await client.execute_workflow(
            Greeting.run, "Temporal", id=f"greeting-{uuid4()}", task_queue=task_queue
        )
        heartbeats.cancel()
    print(f"Workflow completed: {result}")
    call("disconnect", {"reason": "finished", "exit_code": 0, "system_info": SYSTEM_INFO})


if __name__ == "__main__":
    asyncio.run(main())
    # Ends the client's threads now and not while Python shuts down, where temporalio 1.35 sometimes crashes.
    gc.collect()
