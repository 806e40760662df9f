"""What every page of the console does the same: who may see it, that changes are audited, that secrets stay out."""

from typing import Any

from django.db import models
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from environments import audit
from environments.audit import Actor

#: What no filter in an address may have: `?sealed_api_key__startswith=` would be an oracle, a pattern a load.
UNSEARCHABLE = ("regex", "sealed_", "_hash", "wrapped_key", "known_answer", "fingerprint_key", "password")


def actor_of(request: HttpRequest) -> Actor:
    """The signed-in person."""
    return Actor(f"user:{request.user.get_username()}", request.META.get("REMOTE_ADDR") or None)


class ConsoleForm(ModelForm):  # type: ignore[type-arg]  # the model is the subclass's
    """Checks constraints that span fields which can no longer be changed, too."""

    def _get_validation_exclusions(self) -> set[str]:
        known = {name for name in ("organization", "environment") if getattr(self.instance, f"{name}_id", None)}
        return super()._get_validation_exclusions() - known


class ConsoleAdmin(ModelAdmin):
    """Base of every page. Until people have roles in organizations, only superusers pass."""

    form = ConsoleForm
    #: Fields that are chosen when the row is made and fixed from then on.
    fixed_fields: tuple[str, ...] = ()
    #: What parts the names of a row as it is shown, so that the shown text finds it when it is typed.
    name_separators = ""
    show_full_result_count = False
    list_per_page = 50
    warn_unsaved_form = True

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return bool(request.user.is_active and request.user.is_superuser)

    has_change_permission = has_view_permission
    has_delete_permission = has_view_permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        words = search_term.translate(dict.fromkeys(map(ord, self.name_separators), " "))
        return super().get_search_results(request, queryset, words)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        if any(name in lookup for name in UNSEARCHABLE):
            return False
        return bool(super().lookup_allowed(lookup, value, request))

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        fixed = self.fixed_fields if obj else ()
        return [*super().get_readonly_fields(request, obj), *fixed]

    def get_queryset(self, request: HttpRequest) -> Any:
        """Locks a row that is about to be changed, so that a concurrent change is not written over."""
        rows = super().get_queryset(request)
        is_change = request.method == "POST" and getattr(request.resolver_match, "url_name", "").endswith("_change")
        return rows.select_for_update(of=("self",)) if is_change else rows

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:  # noqa: FBT001
        before = audit.snapshot(type(obj)._default_manager.get(pk=obj.pk)) if change else {}
        super().save_model(request, obj, form, change)
        changes = audit.difference(before, audit.snapshot(obj))
        if changes:
            action = f"{audit.kind_of(obj)}.{'updated' if change else 'created'}"
            audit.record(action, obj, actor=actor_of(request), now=timezone.now(), changes=changes)

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        changes = {name: [value, None] for name, value in audit.snapshot(obj).items()}
        action = f"{audit.kind_of(obj)}.deleted"
        audit.record(action, obj, actor=actor_of(request), now=timezone.now(), changes=changes)
        super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for obj in queryset:
            self.delete_model(request, obj)


class ReadOnlyAdmin(ConsoleAdmin):
    """A page of what is on record: nobody adds, changes or deletes it."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    has_delete_permission = has_change_permission
