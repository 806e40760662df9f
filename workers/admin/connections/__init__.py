"""The console's pages of connections: what they are, who uses them, whether they work."""

from workers.admin.connections import pages

__all__ = ["pages"]
