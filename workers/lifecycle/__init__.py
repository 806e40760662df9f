"""The life of a worker: how it starts, what it tells while it runs, how it ends."""

from workers.lifecycle.heartbeats import Heartbeat, disconnect_worker, record_heartbeat
from workers.lifecycle.process import Client
from workers.lifecycle.starts import register_worker, start_in_queue, start_worker

__all__ = [
    "Client",
    "Heartbeat",
    "disconnect_worker",
    "record_heartbeat",
    "register_worker",
    "start_in_queue",
    "start_worker",
]
