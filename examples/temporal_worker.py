"""The smallest honest worker: start, connect, heartbeat, poll, run one workflow, say goodbye.

It knows only three things, from its environment: CONTROL_PLANE_URL, WORKER_ID and API_KEY. Temporal's TLS is on unless
TEMPORAL_TLS=false, as for a local Temporal dev server. `plain_worker.py`, beside it, speaks to the control plane.
"""

import asyncio
import gc
import os
import sys
import threading
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import plain_worker


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


async def keep_heartbeating(interval: float) -> None:
    """Tells the control plane every interval that this process lives; ends it when a person or a newer one says so."""
    ending = threading.Event()
    try:
        await asyncio.to_thread(plain_worker.keep_heartbeating, interval, ending)
    finally:
        ending.set()


async def main(configuration: dict[str, Any]) -> None:
    """Runs one workflow on the task queue that the control plane names."""
    heartbeats = asyncio.create_task(keep_heartbeating(configuration["heartbeat_interval"]))
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
        print(f"Polling {task_queue} in namespace {configuration['temporal_namespace']}.")
        result = await client.execute_workflow(
            Greeting.run, "Temporal", id=f"greeting-{uuid4()}", task_queue=task_queue
        )
    heartbeats.cancel()
    print(f"Workflow completed: {result}")


if __name__ == "__main__":
    plain_worker.run(lambda configuration: asyncio.run(main(configuration)))
    # Ends the client's threads now and not while Python shuts down, where temporalio 1.35 sometimes crashes.
    gc.collect()
