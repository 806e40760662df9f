"""Pages that tell what a change does to the fleet before they save it."""

import hashlib
import json
from datetime import datetime
from typing import Any

from django.contrib.admin.utils import unquote
from django.db import models, transaction
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from environments import audit, times
from environments.admin.console import TYPED_NAME, ConsoleAdmin, is_typed
from workers.configuration.impact import (
    CannotStart,
    CutOff,
    QueueImpact,
    affected_by,
    can_start_again,
    cannot_start,
    compare,
    queues_affected_by,
)
from workers.configuration.revisions import given_in, groups_of, groups_of_queues
from workers.models import Worker

#: What the second, confirming request carries.
CONFIRMED = "_confirmed"


class ConfirmedAdmin(ConsoleAdmin):
    """A page whose changes may alter what workers are given: it asks before it saves such a change.

    The change is made, its effect is looked at, and then it is taken back unless just that effect has been confirmed.
    """

    #: Fields of the form that the confirmation page must not carry.
    secret_fields: tuple[str, ...] = ()

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Reads before the change's transaction what takes longest: which workers it may be about."""
        row = self.get_object(request, unquote(object_id)) if request.method == "POST" and object_id else None
        request.groups = _groups_affected_by(row) if row else {}  # type: ignore[attr-defined]  # up to response_change
        return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:  # noqa: FBT001
        if change:
            request.given = given_in(request.groups)  # type: ignore[attr-defined]  # up to response_change
        super().save_model(request, obj, form, change)

    def response_change(self, request: HttpRequest, obj: models.Model) -> HttpResponse:
        """Asks, when workers would be given something else or told to end; called within the change's transaction."""
        effect = self._effect_on(request, obj)
        if not any(effect.values()):
            return super().response_change(request, obj)
        mark = mark_of(*effect.values())
        name = str(obj) if any(found.online for found in effect["stranded"]) else ""
        is_confirmed = request.POST.get(CONFIRMED) == mark
        if is_confirmed and is_typed(request, name):
            return super().response_change(request, obj)
        told = {**effect, "mark": mark, "name_to_type": name, "is_mistyped": is_confirmed}
        question = self._ask(request, obj, told | {"kept": self.keep_secrets(request, obj)})
        transaction.set_rollback(True)  # from here on nothing can be looked up either
        return question

    def _effect_on(self, request: HttpRequest, obj: models.Model) -> dict[str, list[Any]]:
        """Who is given something else, who could not start any more, and what else a person should know."""
        groups = groups_of(affected_by(obj)) if isinstance(obj, Worker) else request.groups  # type: ignore[attr-defined]  # up to here
        before, after, now = request.given, given_in(groups), times.now()  # type: ignore[attr-defined]  # see save_model
        return {
            "impact": compare(before, after, now=now),
            "stranded": cannot_start(before, after, now=now),
            "consequences": self.consequences(obj, _changes_of(obj)),
        }

    def consequences(self, obj: Any, changes: dict[str, list[Any]]) -> list[str]:  # noqa: ARG002
        """What else the change does that a person should know, in sentences."""
        return []

    def keep_secrets(self, request: HttpRequest, obj: Any) -> dict[str, str]:  # noqa: ARG002
        """Keeps what was typed into `secret_fields`, not in the page; returns what the confirming request says."""
        return {}

    def _ask(self, request: HttpRequest, obj: Any, told: dict[str, Any]) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            **told,
            "opts": self.opts,
            "original": obj,
            "title": "Confirm the change",
            "step": "Confirm the change",
            "changes": [self._shown(name, *values) for name, values in _changes_of(obj).items()],
            **_figures(told["impact"]),
            "was_asked": CONFIRMED in request.POST and not told["is_mistyped"],
            "fields": [
                (name, value)
                for name, values in request.POST.lists()
                if name not in {"csrfmiddlewaretoken", CONFIRMED, TYPED_NAME, *told["kept"], *self.secret_fields}
                for value in values
            ]
            + list(told["kept"].items()),
        }
        return TemplateResponse(request, "admin/workers/confirm_change.html", context)

    def _shown(self, name: str, before: Any, after: Any) -> tuple[str, str, str]:
        """A field's name and its two values as a person knows them: what is pointed to by its name."""
        field: Any = self.model._meta.get_field(name)
        if field.remote_field:
            named = field.related_model._default_manager.in_bulk([pk for pk in (before, after) if pk])
            texts = {str(pk): str(row) for pk, row in named.items()}
            before, after = texts.get(before, before), texts.get(after, after)
        if isinstance(field, models.DateTimeField):
            before, after = _moment(before), _moment(after)
        return str(field.verbose_name), _text(before), _text(after)


def _moment(value: Any) -> str:
    """A time as people read it; the trail has it to the microsecond."""
    return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M:%S} UTC" if value else ""


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | dict) and value:
        return json.dumps(value, ensure_ascii=False)
    return "empty" if value in (None, "", [], {}) else str(value)


def _changes_of(obj: Any) -> dict[str, list[Any]]:
    """What was changed since it was stored; see save_form."""
    return audit.difference(audit.snapshot(obj.stored), audit.snapshot(obj))


def _figures(impact: list[QueueImpact]) -> dict[str, Any]:
    """Of the workers that can start before and after the change, and which can only after it."""
    found = [each for each in impact if not (each.missing_now or each.missing)]
    sums = {name: sum(getattr(each, name) for each in found) for name in ("workers", "online", "outdated")}
    return {**sums, "again": can_start_again(impact)}


def _groups_affected_by(row: Any) -> dict[Any, Any]:
    return groups_of(affected_by(row)) | groups_of_queues(queues_affected_by(row))


def refused(found: CutOff) -> str:
    """What a person should know of processes that are cut off."""
    return f"{found}: heartbeats and starts with it are refused from then on."


def mark_of(impact: list[QueueImpact], stranded: list[CannotStart], *beside: Any) -> str:
    """What tells one effect from another; how many are live may change between the question and the answer."""
    told = [(found.queue_id, found.old_revision, found.new_revision, found.workers) for found in impact]
    lost = [(found.reason, found.workers, found.queues) for found in stranded]
    return hashlib.sha256(repr((told, lost, beside)).encode()).hexdigest()[:16]
