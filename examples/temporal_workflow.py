"""Gives the workers of a task queue something to do: `temporal_workflow.py HOST:PORT NAMESPACE TASK_QUEUE`.

Temporal's API key, where it wants one, is TEMPORAL_API_KEY. `temporal_worker.py`, beside it, has the workflow.
"""

import asyncio
import os
import sys
from uuid import uuid4

from temporal_worker import Greeting, connect


async def main(host: str, namespace: str, task_queue: str) -> None:
    """Waits for the result of one workflow."""
    client = await connect(host, namespace, os.environ.get("TEMPORAL_API_KEY", ""))
    result = await client.execute_workflow(Greeting.run, "Temporal", id=f"greeting-{uuid4()}", task_queue=task_queue)
    print(f"Workflow completed: {result}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("Name Temporal's host:port, the namespace and the task queue.")
    asyncio.run(main(*sys.argv[1:]))
    # Nothing is left to do. While Python shuts down, the threads of temporalio 1.35 sometimes crash it.
    sys.stdout.flush()
    os._exit(0)
