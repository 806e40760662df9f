"""The console's pages of worker queues, workers, their starts and API keys."""

from workers.admin import api_keys, starts, workers

__all__ = ["api_keys", "starts", "workers"]
