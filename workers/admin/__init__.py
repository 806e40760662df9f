"""The console's pages of the fleet: what runs, what it is given, and who may start it."""

from workers.admin import api_keys, connections, notifications, organizations, queues, starts, workers

__all__ = ["api_keys", "connections", "notifications", "organizations", "queues", "starts", "workers"]
