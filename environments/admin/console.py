"""What every page of the console does the same: who may see it, that changes are audited, that secrets stay out."""

import re
from functools import cache
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin import ShowFacets, actions
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from unfold.admin import ModelAdmin, checkbox

from environments import audit, times
from environments.admin.deletion_page import MOST_DELETED, barriers, going
from environments.admin.error_page import error_page
from environments.admin.paginator import CappedPaginator
from environments.admin.searches import BoundedList, TooMuchAskedError, cut_search, is_column, parameters_of
from environments.admin.signed_in import staff_of
from environments.audit import Actor
from environments.database.removal import Removal
from environments.deletion import GoneError, delete
from environments.models import Role
from environments.moments import moment

#: What no filter in an address may have: `?sealed_api_key__startswith=` would be an oracle, a pattern a load.
UNSEARCHABLE = ("regex", "sealed_", "_hash", "wrapped_key", "known_answer", "fingerprint_key", "password")

#: The name that is typed where workers that run are concerned.
TYPED_NAME = "_typed_name"
MISTYPED = "Nothing was deleted: workers that run now are concerned, so type what the page asks for."

#: Of records that pile up, how many a search looks through.
MOST_SEARCHED = 100_000
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def actor_of(request: HttpRequest) -> Actor:
    """The signed-in person."""
    return Actor(f"user:{request.user.get_username()}", request.META.get("REMOTE_ADDR") or None)


def too_many(most: int, rows: str, done: str = "changed") -> str:
    """Why a selection was refused that is too large."""
    return f"Nothing was {done}: at most {most:,} {rows} at once. Use the filters or the search to choose fewer."


def is_typed(request: HttpRequest, name: str) -> bool:
    """Whether the name was typed that has to be; "" has not."""
    return not name or request.POST.get(TYPED_NAME, "").strip() == name.strip()


class ConsoleForm(ModelForm):  # type: ignore[type-arg]  # the model is the subclass's
    """Changes of a row what the person changed of what the page showed, and nothing that others changed meanwhile.

    Constraints that span fields which can no longer be changed are checked, too.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            for field in self.instance._meta.concrete_fields:
                if field.name in self.fields:
                    self.fields[field.name].show_hidden_initial = True

    def _clean_fields(self) -> None:
        """What the page showed comes back beside what was typed; what is the same has the row's own value."""
        super()._clean_fields()
        for name in self.cleaned_data.keys() & self.fields.keys():
            bound = self[name]
            is_told = bound.field.show_hidden_initial and not bound.field.hidden_widget().value_omitted_from_data(
                self.data, self.files, bound.html_initial_name
            )
            if is_told and not bound._has_changed():  # type: ignore[attr-defined]  # Django's own
                self.cleaned_data[name] = getattr(self.instance, name)

    def _get_validation_exclusions(self) -> set[str]:
        known = {name for name in ("organization", "environment") if getattr(self.instance, f"{name}_id", None)}
        return super()._get_validation_exclusions() - known


class ConsoleAdmin(ModelAdmin):
    """Base of every page: a person sees and changes what their roles in organizations allow."""

    form = ConsoleForm
    #: The lookup that leads from a row to its organization.
    organization_path = "organization"
    #: The least role that reads, and that adds, changes and deletes; None is for superusers only.
    reader_role: Role | None = Role.VIEWER
    writer_role: Role | None = Role.ADMINISTRATOR
    #: Fields that are chosen when the row is made and fixed from then on.
    fixed_fields: tuple[str, ...] = ()
    #: Columns that are one: whoever changes one of them has seen, and decides, all.
    joint_fields: frozenset[str] = frozenset()
    #: What parts the names of a row as it is shown, so that the shown text finds it when it is typed.
    name_separators = ""
    show_full_result_count = False
    show_facets = ShowFacets.NEVER  # each would count all rows that there are
    paginator = CappedPaginator
    list_per_page = 50
    warn_unsaved_form = True
    #: Asked for in each row of a list. Of what a page does not have, templates look through all that it has.
    list_sections = ()
    actions: Any = ("delete_selected",)
    #: The column that tells when a row was made.
    made_at = "created_at"
    #: What a list says that has no rows, and what leads to the first one.
    empty = ""
    #: What the page is called that adds a row.
    adding = ""

    @admin.display(description="created", ordering="created_at")
    def created(self, row: Any) -> SafeString:
        """When the row was made."""
        return moment(row.created_at)

    @admin.display(description=ModelAdmin.action_checkbox.short_description)
    def action_checkbox(self, obj: Any) -> SafeString:
        """As unfold has it, without a template for each row."""
        return format_html(_checkbox(), obj.pk)

    # --- What pages are called ---

    def name_of(self, row: Any) -> str:
        """A row's name, which tells its organization."""
        return str(row)

    def title_of(self, row: Any) -> str:
        """What a row's page is called."""
        return f"{capfirst(self.opts.verbose_name)} {self.name_of(row)}"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Calls the page by what is on it."""
        context["title"] = self.title_of(obj) if obj else self.adding or f"New {self.opts.verbose_name}"
        context["subtitle"] = None
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    # --- Who may do what ---

    def has_view_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.may(request, self.reader_role, obj)

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.may(request, self.writer_role, obj)

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return self.may(request, self.writer_role, obj)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, self.writer_role)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def may(self, request: HttpRequest, role: Role | None, obj: models.Model | None = None) -> bool:
        """Whether the person has the role in the row's organization; without a row, in any."""
        staff = staff_of(request)
        if obj is None:
            return staff.may_somewhere(role)
        return staff.may(role, getattr(obj, "organization_id", None))

    def get_field_queryset(self, db: str | None, db_field: Any, request: HttpRequest) -> Any:
        """Offers only what belongs to organizations where the person may write."""
        target = db_field.remote_field.model
        rows = super().get_field_queryset(db, db_field, request)
        rows = target._default_manager.all() if rows is None else rows
        related = self.admin_site._registry.get(target)
        path = getattr(related, "organization_path", "organization")
        return staff_of(request).within(rows, path, self.writer_role)

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        """No more words than `cut_search` leaves, whoever asks."""
        term, _ = cut_search(search_term, self.name_separators)
        words = term.translate(dict.fromkeys(map(ord, self.name_separators), " "))
        return super().get_search_results(request, queryset, words)

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:  # noqa: ARG002
        """The list's own filters, and comparisons of its own columns: what else there is, an address may not ask."""
        if any(name in lookup for name in UNSEARCHABLE):
            return False
        return lookup in parameters_of(self.list_filter) or is_column(self.model, lookup)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[BoundedList]:  # noqa: ARG002
        return BoundedList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """The list, or why its address asks for too much."""
        try:
            return super().changelist_view(request, extra_context)
        except TooMuchAskedError as error:
            return error_page(request, 400, "Bad request", str(error))

    def get_readonly_fields(self, request: HttpRequest, obj: models.Model | None = None) -> list[str]:
        fixed = self.fixed_fields if obj else ()
        return [*super().get_readonly_fields(request, obj), *fixed]

    def get_queryset(self, request: HttpRequest) -> Any:
        """Only rows of the person's organizations."""
        return staff_of(request).within(super().get_queryset(request), self.organization_path, self.reader_role)

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        """With what was read, so that it is known later what the person changes."""
        row = super().get_object(request, object_id, from_field)
        if row is not None:
            self.settle(row)
            row.read = _values(row)
        return row

    def settle(self, row: Any) -> None:
        """Takes out of a row that was read what no longer holds."""

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:  # noqa: FBT001
        """Locks a row from here on, and takes over what others have changed of it since it was read.

        Weakly, so that starts go on, which refer to the row; that waits for a change of what they refer to by.
        """
        row = super().save_form(request, form, change)
        if change:
            changed = {name for name, value in _values(row).items() if value != row.read[name]}
            changed |= self.joint_fields if changed & self.joint_fields else frozenset()
            rows = type(row)._default_manager.select_for_update(no_key=not changed & _keys_of(type(row)))
            row.stored = rows.filter(pk=row.pk).order_by().first()  # else the order joins, and locks, what it goes by
            if row.stored is None:
                msg = "It was deleted meanwhile."
                raise Http404(msg)
            self.settle(row.stored)
            for name, value in _values(row.stored).items():
                if name not in changed:
                    setattr(row, name, value)
        return row

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """Refused like the other pages to those who may see no row at all; Django looks for the row first."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        response = super().history_view(request, object_id, {**(extra_context or {}), "step": "History"})
        if row := getattr(response, "context_data", {}).get("object"):
            response.context_data["title"] = f"History of {self.name_of(row)}"
        return response

    def get_paginator(self, request: HttpRequest, queryset: Any, per_page: int, *args: Any, **kwargs: Any) -> Any:
        """Of Django's log, which knows no organizations, only what came after a row was made: its id may be reused."""
        if getattr(queryset, "model", None) is LogEntry:
            pk = unquote(request.resolver_match.kwargs["object_id"])  # type: ignore[union-attr]  # a page has a route
            made = self.model._default_manager.filter(pk=pk).values_list(self.made_at, flat=True).first()
            queryset = queryset.filter(action_time__gte=made) if made else queryset
        return super().get_paginator(request, queryset, per_page, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:  # noqa: FBT001
        before = audit.snapshot(obj.stored) if change else {}  # type: ignore[attr-defined]  # see save_form
        super().save_model(request, obj, form, change)
        changes = audit.difference(before, audit.snapshot(obj))
        if changes:
            action = f"{audit.kind_of(obj)}.{'updated' if change else 'created'}"
            audit.record(action, obj, actor=actor_of(request), now=times.now(), changes=changes)

    # --- Deleting ---

    def losses(self, rows: Any) -> list[str]:  # noqa: ARG002
        """What else a person should know before these rows are deleted, in sentences."""
        return []

    def name_to_type(self, rows: Any) -> str:  # noqa: ARG002
        """What a person has to type before these rows are deleted; "" for nothing."""
        return ""

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What goes and what stands in the way, told by kinds: a worker may have had a million processes.

        What goes along needs no permission of its own; whoever may delete a row may delete what is the row's.
        """
        rows = list(objs)
        if not rows:
            return [], {}, set(), []
        removal = Removal(rows)
        counts = {type(rows[0]): len(rows), **removal.along()}
        names = {kind._meta.verbose_name_plural: count for kind, count in counts.items()}
        forbidden = {self.opts.verbose_name for row in rows if not self.has_delete_permission(request, row)}
        return [*going(removal), *self.losses(rows)], names, forbidden, list(barriers(removal))

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        row = self.get_object(request, unquote(object_id))
        name = self.name_to_type([row]) if row is not None else ""
        if request.method == "POST" and not is_typed(request, name):
            self.message_user(request, MISTYPED, messages.ERROR)
            return redirect(request.path)
        try:
            context = {**(extra_context or {}), "step": "Delete", "name_to_type": name}
            response = super().delete_view(request, object_id, context)
        except GoneError:
            return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)
        if row := getattr(response, "context_data", {}).get("object"):
            can = "Cannot delete" if response.context_data["protected"] else "Delete"
            response.context_data["title"] = f"{can} {self.name_of(row)}"
        return response

    def delete_model(self, request: HttpRequest, obj: models.Model) -> None:
        delete(obj, actor=actor_of(request), now=times.now())

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for obj in queryset:
            self.delete_model(request, obj)

    @admin.action(description="Delete selected %(verbose_name_plural)s", permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """Django's own, for as many as its page can list; all of them or none, and so is what is on record of it."""
        if queryset.order_by()[: MOST_DELETED + 1].count() > MOST_DELETED:
            self.message_user(request, too_many(MOST_DELETED, self.opts.verbose_name_plural), messages.ERROR)
            return None
        name = self.name_to_type(list(queryset))
        if not request.POST.get("post"):
            return self._named(actions.delete_selected(self, request, queryset), name)
        if not is_typed(request, name):
            self.message_user(request, MISTYPED, messages.ERROR)
            return None
        with transaction.atomic():
            ids = queryset.order_by().values_list("pk", flat=True)
            locked = self.model._base_manager.filter(pk__in=list(ids)).order_by("pk").select_for_update()
            chosen = queryset.filter(pk__in=[row.pk for row in locked])
            return self._named(actions.delete_selected(self, request, chosen))

    def _named(self, response: Any, name_to_type: str = "") -> Any:
        """The page that asks, called by what it asks; there is none once it is done."""
        if response is not None:
            can = "Cannot delete" if response.context_data["protected"] else "Delete"
            response.context_data["title"] = f"{can} these {self.opts.verbose_name_plural}"
            response.context_data["name_to_type"] = name_to_type
        return response


@cache
def _checkbox() -> str:
    """The box that chooses a row, with a place for the row's id."""
    shown: str = checkbox.render(ACTION_CHECKBOX_NAME, "ID")
    return shown.replace("{", "{{").replace("}", "}}").replace('value="ID"', 'value="{}"')


def _values(row: models.Model) -> dict[str, Any]:
    """The columns of a row."""
    return {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}


def _keys_of(model: type[models.Model]) -> set[str]:
    """The columns that other tables might refer to: PostgreSQL locks a row against all references where one changes."""
    unique = {field.attname for field in model._meta.concrete_fields if field.unique}
    for constraint in model._meta.constraints:
        if isinstance(constraint, models.UniqueConstraint) and not constraint.condition:
            unique |= {model._meta.get_field(name).attname for name in constraint.fields}  # type: ignore[union-attr]  # columns
    return unique


class ReadOnlyAdmin(ConsoleAdmin):
    """A page of what is on record: nobody adds, changes or deletes it."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:  # noqa: ARG002
        return False

    has_delete_permission = has_change_permission


class RecordsAdmin(ReadOnlyAdmin):
    """A page of records that pile up: its list is in the order of time, and its search looks through the latest.

    Whoever looks further back chooses a period or another filter: the search is within what that leaves.
    """

    #: The field that says when, which is indexed.
    recorded_at: str
    #: Fields with ids, which are indexed: one that is typed is looked up, however old its record is.
    id_fields: tuple[str, ...]

    def get_sortable_by(self, request: HttpRequest) -> Any:
        return [name for name in super().get_sortable_by(request) if self._order_of(name) == self.recorded_at]

    def get_search_results(self, request: HttpRequest, queryset: Any, search_term: str) -> Any:
        if found := UUID_TEXT.fullmatch(search_term.strip().lower()):
            named = [queryset.filter(**{name: found[0]}) for name in self.id_fields]
            return next((rows for rows in named if rows.exists()), queryset.none()), False
        if search_term.strip():
            times = queryset.order_by(f"-{self.recorded_at}").values_list(self.recorded_at, flat=True)
            for earliest in times[MOST_SEARCHED - 1 : MOST_SEARCHED]:
                queryset = queryset.filter(**{f"{self.recorded_at}__gte": earliest})
        return super().get_search_results(request, queryset, search_term)

    def _order_of(self, name: str) -> Any:
        return getattr(getattr(self, name, None), "admin_order_field", name)
