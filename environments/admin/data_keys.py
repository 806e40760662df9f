"""The console's page of data keys."""

from django.contrib import admin

from environments.admin.console import ReadOnlyAdmin
from environments.models import DataKey, Role


@admin.register(DataKey)
class DataKeyAdmin(ReadOnlyAdmin):
    """Data keys: made with an organization's first secret, rotated by `manage.py rotate_encryption`."""

    empty = "A data key is made with the first secret of an organization."
    reader_role = Role.ADMINISTRATOR
    list_display = ("id", "organization", "wrapped_by", "seal_count", "created", "is_active")
    search_fields = ("organization__id", "wrapped_by")
    fields = list_display

    @admin.display(boolean=True, description="active")
    def is_active(self, row: DataKey) -> bool:
        return row.active_for_id is not None
