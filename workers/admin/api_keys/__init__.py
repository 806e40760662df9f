"""The console's pages of API keys: issue, rotate, revoke, what each is used for, and when what expires."""

from workers.admin.api_keys.keys import ApiKeyAdmin

__all__ = ["ApiKeyAdmin"]
