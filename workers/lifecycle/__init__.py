"""The life of a worker: how it starts, what it tells while it runs, how it ends."""

from workers.lifecycle.goodbyes import Goodbye, disconnect_worker
from workers.lifecycle.heartbeats import Heartbeat, record_heartbeat
from workers.lifecycle.process import Client
from workers.lifecycle.registrations import register_worker
from workers.lifecycle.starts import start_in_queue, start_worker

__all__ = [
    "Client",
    "Goodbye",
    "Heartbeat",
    "disconnect_worker",
    "record_heartbeat",
    "register_worker",
    "start_in_queue",
    "start_worker",
]
