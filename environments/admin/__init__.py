"""The console's ground, and its pages of members, data keys and the audit trail.

May import everything in this package.
"""

from environments.admin import audit_events, data_keys, memberships

__all__ = ["audit_events", "data_keys", "memberships"]
