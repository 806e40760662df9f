"""The smallest honest worker: start, connect, heartbeat, poll until it is told to end, say goodbye.

It knows only three things, from its environment: CONTROL_PLANE_URL, WORKER_ID and API_KEY. `plain_worker.py`, beside
it, speaks to the control plane. With an API key Temporal is spoken to in TLS, without one it is not, as on Temporal's
development server; TEMPORAL_TLS=true or false says otherwise.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any

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


async def connect(host: str, namespace: str, api_key: str) -> Client:
    """Temporal's client, with what the control plane says."""
    is_tls = {"true": True, "false": False}.get(os.environ.get("TEMPORAL_TLS", "").lower(), bool(api_key))
    try:
        return await Client.connect(host, namespace=namespace, api_key=api_key or None, tls=is_tls)
    except RuntimeError as error:
        sys.exit(f"Temporal cannot be reached at {host}: {error}")


def end_with_signals(heartbeats: asyncio.Task[None]) -> None:
    """A signal ends the heartbeats and so the polling: what runs is finished, and nothing hangs half cancelled."""
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError):  # on Windows the handlers of plain_worker stay
            asyncio.get_running_loop().add_signal_handler(number, heartbeats.cancel)


async def main(configuration: dict[str, Any]) -> None:
    """Polls the task queue that the control plane names, until this process is told to end."""
    heartbeats = asyncio.create_task(keep_heartbeating(configuration["heartbeat_interval"]))
    host, namespace, task_queue = (
        configuration[name] for name in ("temporal_host", "temporal_namespace", "task_queue_name")
    )
    client = await connect(host, namespace, configuration["temporal_api_key"])
    end_with_signals(heartbeats)
    async with Worker(client, task_queue=task_queue, workflows=[Greeting], activities=[greet]):
        print(f"Polling {task_queue} in namespace {namespace}.", flush=True)
        with suppress(asyncio.CancelledError):
            await heartbeats
    if heartbeats.cancelled():
        sys.exit(0)


if __name__ == "__main__":
    plain_worker.run(lambda configuration: asyncio.run(main(configuration)))
    # Ends the client's threads now and not while Python shuts down, where temporalio 1.35 sometimes crashes.
    gc.collect()
