"""The console's pages of who is told what: targets, what stands, and the messages about it."""

from workers.admin.notifications import records, targets

__all__ = ["records", "targets"]
