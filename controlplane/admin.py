"""Where Django looks for the console's pages of this app."""

from controlplane.console import users

__all__ = ["users"]
