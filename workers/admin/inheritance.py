"""What an empty connection of a form means: what the levels above give."""

from typing import Any, ClassVar

from django.db import models
from django.http import HttpRequest, HttpResponse
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from environments.connections.levels import Layer, Level, Section, resolve
from environments.models import Environment, HasConnections
from environments.models.connections import CONNECTION_POINTERS
from environments.models.json_fields import ObjectField, TagsField
from workers.admin.confirmation import ConfirmedAdmin
from workers.admin.decisions import MomentField, MomentWidget
from workers.models import Worker, WorkerQueue

#: What is said where no level above points to one.
MISSING = "Empty inherits none, since no level above has one: starts are refused."
EXPORTS_NOTHING = "Empty inherits none, since no level above has any: workers are given defaults, which export nothing."
LATER = "Empty inherits what the levels above have."


class InheritingAdmin(ConfirmedAdmin):
    """Pages of levels below the organization, which inherit what they leave empty."""

    formfield_overrides: ClassVar[dict[Any, dict[str, Any]]] = {
        TagsField: {"widget": UnfoldAdminTextInputWidget},
        models.DateTimeField: {"form_class": MomentField, "widget": MomentWidget},
        ObjectField: {"widget": UnfoldAdminTextareaWidget(attrs={"rows": 4})},
    }

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        """Says at each pointer what it inherits while it is empty; `chained` is the row if its chain is loaded."""
        fields = context["adminform"].form.fields
        said = inherited_by(context.get("chained", obj)) if obj else dict.fromkeys(CONNECTION_POINTERS, LATER)
        for pointer, sentence in said.items():
            if pointer in fields:
                fields[pointer].help_text = sentence
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)


def inherited_by(row: HasConnections) -> dict[str, str]:
    """For each pointer of a level what it would inherit, in a sentence."""
    sections = resolve([Layer(level, holder) for level, holder in _above(row)])
    return {pointer: _told(pointer, section) for pointer, section in zip(CONNECTION_POINTERS, sections, strict=True)}


def _told(pointer: str, section: Section[Any]) -> str:
    if winner := section.winner:
        return f"Empty inherits {winner.row} from {winner.level} {winner.holder}."
    return EXPORTS_NOTHING if pointer == "telemetry_settings" else MISSING


def _above(row: Any) -> list[tuple[Level, HasConnections]]:
    """The levels above a row, the narrowest first."""
    found: list[tuple[Level, HasConnections]] = []
    if isinstance(row, Worker):
        found.append((Level.QUEUE, row.queue))
    queue = row.queue if isinstance(row, Worker) else row
    if isinstance(queue, WorkerQueue):
        found.append((Level.ENVIRONMENT, queue.environment))
    if isinstance(row, (Worker, WorkerQueue, Environment)):
        found.append((Level.ORGANIZATION, row.organization))
    return found
