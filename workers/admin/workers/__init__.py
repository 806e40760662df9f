"""The console's pages of workers: the list, one worker, a new one, and what is done to many."""

from workers.admin.workers import listing

__all__ = ["listing"]
