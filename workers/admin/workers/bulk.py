"""What the list of workers does with many at once: it says what would happen, and does it when that is confirmed."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from http import HTTPMethod
from typing import Any, cast
from uuid import UUID

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template.defaultfilters import pluralize
from django.template.response import TemplateResponse
from django.urls import path, reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from environments import times
from environments.admin.console import ConsoleAdmin, actor_of, is_typed, too_many
from environments.admin.searches import BoundedAutocomplete
from environments.admin.signed_in import staff_of
from environments.models import Role
from workers.admin.api_keys.forms import LifetimeField
from workers.admin.confirmation import CONFIRMED, mark_of
from workers.admin.decisions import DecisionFields
from workers.admin.workers.export import keys_as_csv, workers_as_csv
from workers.api_keys.issuing import NAME_LENGTH, ApiKeyError
from workers.configuration.impact import can_start_again
from workers.fleet import bulk
from workers.fleet.bulk import BulkError, Move, Outcome
from workers.models import State, Worker, WorkerQueue

#: Queues that the confirmation page lists.
SHOWN_QUEUES = 50
MOST_EXPORTED = 20_000
NONE_LEFT = "Nothing was changed: none of the chosen workers is there any more."


@dataclass(frozen=True)
class Selection:
    """The chosen workers that the person may see."""

    organization_of: dict[UUID, str]
    #: How many were chosen, those that are no longer there among them.
    asked: int

    @cached_property
    def ids(self) -> list[UUID]:
        return list(self.organization_of)

    @cached_property
    def organizations(self) -> list[str]:
        return sorted(set(self.organization_of.values()))


class BulkForm(forms.Form):
    """What has to be said beside the workers; most actions need nothing."""

    def __init__(self, *arguments: Any, selection: Selection, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.selection = selection


class QueueWidget(AutocompleteSelect):
    """Searches the queues of one organization."""

    organization_id = ""

    def get_url(self) -> str:
        return reverse("admin:workers_worker_bulk_queues", args=[self.organization_id])


class MoveForm(BulkForm):
    """Where to."""

    queue = forms.ModelChoiceField(
        WorkerQueue.objects.none(),
        label="To worker queue",
        widget=QueueWidget(Worker._meta.get_field("queue"), admin.site),
    )

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        organization_id = next(iter(self.selection.organizations), "")
        queues: Any = self.fields["queue"]
        queues.queryset = WorkerQueue.objects.select_related("environment").filter(organization=organization_id)
        queues.widget.organization_id = organization_id

    def clean_queue(self) -> WorkerQueue:
        """A queue where none of the names is taken."""
        queue: WorkerQueue = self.cleaned_data["queue"]
        try:
            bulk.require_free_names(self.selection.ids, queue)
        except BulkError as error:
            raise forms.ValidationError(str(error)) from None
        return queue


class DecisionForm(DecisionFields, BulkForm):
    """Why, and until when."""


class KeysForm(BulkForm):
    """What the keys are called, and for how long they are valid."""

    name = forms.CharField(
        label="Name of the keys",
        max_length=NAME_LENGTH,
        widget=UnfoldAdminTextInputWidget,
        help_text="What they are for. No two keys of a worker made here may have the same name.",
    )
    days = LifetimeField()


@dataclass(frozen=True)
class Verb:
    """Something that can be done with many workers."""

    name: str
    description: str
    button: str
    #: What happens, in sentences.
    told: tuple[str, ...]
    done: str = ""
    #: How a worker is to which nothing happens.
    so: str = ""
    state: State | None = None
    most: int = bulk.MOST_WORKERS
    form: type[BulkForm] = BulkForm
    variant: str = "primary"


VERBS = {
    verb.name: verb
    for verb in (
        Verb(
            "disable",
            "Disable selected workers",
            "Disable",
            (
                "They cannot start any more. Their running processes are told to end at their next heartbeat.",
                "Enabling them takes this back, and so does the end that is given here.",
            ),
            done="disabled",
            so="disabled",
            state=State.DISABLED,
            form=DecisionForm,
            variant="danger",
        ),
        Verb(
            "enable",
            "Enable selected workers (neither disabled nor draining)",
            "Enable",
            (
                "They may start again: this takes back both disabled and draining.",
                "A process that was told to end does not come back by itself.",
            ),
            done="enabled",
            so="enabled",
            state=State.ENABLED,
        ),
        Verb(
            "drain",
            "Drain selected workers",
            "Drain",
            (
                "Their running processes go on and finish; the workers do not start again.",
                "Enabling them takes this back, and so does the end that is given here.",
                "A worker that is disabled stays as it is.",
            ),
            done="draining",
            so="draining",
            state=State.DRAINING,
            form=DecisionForm,
        ),
        Verb(
            "move",
            "Move selected workers to another queue",
            "Look what it does",
            (
                "At its next start each is given the task queue and the configuration of the other worker queue.",
                "Running processes go on in the task queue that they were given until they are restarted.",
            ),
            done="moved",
            so="there",
            form=MoveForm,
        ),
        Verb(
            "issue_keys",
            "Issue API keys for selected workers",
            "Issue and download",
            (
                "Each worker gets one more API key, for itself alone; the keys that it has stay valid.",
                "The answer is a CSV file with the keys. It is the only time that they are shown.",
            ),
            form=KeysForm,
            most=bulk.MOST_KEYS,
        ),
    )
}


class QueuesOfOrganization(BoundedAutocomplete):
    """The queues of one organization, as far as the person may see them."""

    def get_queryset(self) -> Any:
        return super().get_queryset().filter(organization=self.kwargs["organization_id"])


def _asking(verb: Verb) -> Callable[..., HttpResponse | None]:
    @admin.action(description=verb.description, permissions=["change"])
    def ask(model_admin: Any, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        return model_admin.ask_about(verb, request, queryset)

    ask.__name__ = verb.name
    return ask


class BulkActions(ConsoleAdmin):
    """The actions of the list of workers: each asks first on a page of its own, whose answer is a POST."""

    writer_role = Role.OPERATOR
    actions: Any = (*map(_asking, VERBS.values()), "export", "delete_selected")

    @admin.action(description="Export selected workers as CSV", permissions=["view"])
    def export(self, request: HttpRequest, queryset: Any) -> StreamingHttpResponse | None:
        """For as many as a thread of the server can be held up with; `manage.py list_workers` lists any number."""
        if queryset.order_by()[: MOST_EXPORTED + 1].count() > MOST_EXPORTED:
            self.message_user(request, too_many(MOST_EXPORTED, "workers", "exported"), messages.ERROR)
            return None
        return _attachment(workers_as_csv(queryset), f"workers-{times.now():%Y-%m-%d}.csv")

    def get_urls(self) -> list[Any]:
        """Adds the page that asks and acts, and the search for a queue to move to."""
        wrap = self.admin_site.admin_view
        queues = QueuesOfOrganization.as_view(admin_site=self.admin_site)
        own = [
            path("bulk/queues/<slug:organization_id>/", wrap(queues), name="workers_worker_bulk_queues"),
            path("bulk/<slug:name>/", wrap(self.bulk_view), name="workers_worker_bulk"),
        ]
        return own + list(super().get_urls())

    def ask_about(self, verb: Verb, request: HttpRequest, queryset: Any) -> HttpResponse | None:
        """The page that tells what would happen to the rows of the list; None after a message why it cannot."""
        chosen = queryset.order_by().values_list("pk", "organization_id")
        found = dict(chosen[: verb.most + 1])
        selection = Selection(found, len(found))
        if not found:
            self.message_user(request, NONE_LEFT, messages.ERROR)
            return None
        if problem := _problem(verb, request, selection):
            self.message_user(request, problem, messages.ERROR)
            return None
        initial = {"name": f"issued {times.now():%Y-%m-%d %H:%M:%S}"}
        return self._page(verb, request, verb.form(selection=selection, initial=initial))

    def bulk_view(self, request: HttpRequest, name: str) -> HttpResponse | StreamingHttpResponse:
        """What is confirmed is done, to just the workers that the page told of."""
        verb = VERBS.get(name)
        if request.method != HTTPMethod.POST or not verb:
            return self._list(request)
        selection = _posted(request, request.POST.get("workers", ""))
        if not selection.ids:
            self.message_user(request, NONE_LEFT, messages.ERROR)
            return self._list(request)
        if problem := _problem(verb, request, selection):
            raise PermissionDenied(problem)
        form = verb.form(request.POST, selection=selection)
        if form.is_valid():
            try:
                return self._act(verb, request, form)
            except (BulkError, ApiKeyError) as error:
                form.add_error(None, str(error))
        return self._page(verb, request, form)

    def _act(self, verb: Verb, request: HttpRequest, form: BulkForm) -> HttpResponse | StreamingHttpResponse:
        ids, actor, now = form.selection.ids, actor_of(request), times.now()
        match form:
            case KeysForm():
                lifetime = timedelta(days=form.cleaned_data["days"])
                name = form.cleaned_data["name"]
                issued = bulk.issue_api_keys(ids, name=name, lifetime=lifetime, actor=actor, now=now)
                return _attachment(keys_as_csv(issued), f"api-keys-{now:%Y-%m-%d-%H%M%S}.csv")
            case MoveForm():
                queue = form.cleaned_data["queue"]
                move = bulk.look_at_move(ids, queue, now)
                mark = mark_of(move.impact, move.cannot_start, queue.pk)
                is_confirmed = request.POST.get(CONFIRMED) == mark
                name = str(queue) if any(each.online for each in move.cannot_start) else ""
                if not (is_confirmed and is_typed(request, name)):
                    asked = {"mark": mark, "name_to_type": name, "is_mistyped": is_confirmed}
                    asked["again"] = can_start_again(move.impact)
                    return self._page(verb, request, form, move=move, notes=list(_notes(move, queue)), **asked)
                outcome = bulk.move_workers(ids, queue, actor=actor, now=now)
            case _:
                state = cast("State", verb.state)
                outcome = bulk.set_states(ids, state, **form.cleaned_data, actor=actor, now=now)
        self.message_user(request, _told(verb, outcome, form.selection), messages.SUCCESS)
        return self._list(request)

    def _page(self, verb: Verb, request: HttpRequest, form: BulkForm, **told: Any) -> HttpResponse:
        shares = bulk.shares_of(form.selection.ids, times.now(), state=verb.state)
        context = {
            **self.admin_site.each_context(request),
            **told,
            "opts": self.opts,
            "title": verb.description.partition(" (")[0],
            "verb": verb,
            "form": form,
            "media": self.media + form.media,
            "workers": ",".join(pk.hex for pk in form.selection.ids),
            "list": request.POST.get("list", request.GET.urlencode()),
            "shares": shares[:SHOWN_QUEUES],
            "more_queues": max(0, len(shares) - SHOWN_QUEUES),
            "total": sum(share.workers for share in shares),
            "live": sum(share.live for share in shares),
            "unchanged": sum(share.unchanged for share in shares),
        }
        return TemplateResponse(request, "admin/workers/bulk/confirm.html", context)

    def _list(self, request: HttpRequest) -> HttpResponse:
        """Back to the list as it was filtered."""
        return redirect(f"{reverse('admin:workers_worker_changelist')}?{request.POST.get('list', '')}".rstrip("?"))


def _posted(request: HttpRequest, text: str) -> Selection:
    """The workers with these ids; ValueError, which is answered with 400, for what is no list of ids."""
    ids = {UUID(hex=part) for part in text.split(",")} if text else set()
    mine = staff_of(request).within(Worker.objects.all(), "organization").order_by()
    # One more than can be is enough to refuse them.
    asked = sorted(ids)[: bulk.MOST_WORKERS + 1]
    return Selection(dict(mine.filter(pk__in=asked).values_list("pk", "organization_id")), len(asked))


def _problem(verb: Verb, request: HttpRequest, selection: Selection) -> str:
    """Why nothing of this can be done by this person; "" if it can."""
    if len(selection.ids) > verb.most:
        return too_many(verb.most, "workers")
    staff = staff_of(request)
    foreign = [each for each in selection.organizations if not staff.may(BulkActions.writer_role, each)]
    if foreign:
        return f"Nothing was changed: you may only look at the workers of {', '.join(foreign[:SHOWN_QUEUES])}."
    if verb.form is MoveForm and len(selection.organizations) > 1:
        return "Nothing was changed: workers of several organizations cannot be moved together."
    return ""


def _told(verb: Verb, outcome: Outcome, selection: Selection) -> str:
    """What happened, in one sentence."""
    parts = [f"{outcome.changed} worker{pluralize(outcome.changed)} {verb.done}"]
    if outcome.unchanged:
        parts.append(f"{outcome.unchanged} {pluralize(outcome.unchanged, 'was,were')} {verb.so} already")
    if kept := outcome.disabled:
        parts.append(f"{kept} {pluralize(kept, 'stays,stay')} disabled")
    if gone := selection.asked - outcome.changed - outcome.unchanged - outcome.disabled:
        parts.append(f"{gone} {pluralize(gone, 'is,are')} no longer there")
    return f"{', '.join(parts)}."


def _notes(move: Move, queue: WorkerQueue) -> Iterator[str]:
    """What else happens to the processes that run, and to those that would start."""
    state = queue.state_at(times.now())
    if state is State.DISABLED:
        yield f"The other queue is disabled: running processes are told to end, and none can start.{queue.why}"
    if state is State.DRAINING:
        yield f"The other queue is draining: running processes go on, and none can start.{queue.why}"
    if queue.max_workers is not None and move.live_there + move.live > queue.max_workers:
        yield (
            f"The other queue takes {queue.max_workers} live workers. {move.live_there} are live there and {move.live} "
            "more come along: those go on, and further starts are refused."
        )
    if move.cut_off:
        yield (
            f"{move.cut_off} running process{pluralize(move.cut_off, 'es')} started with an API key that does not "
            "reach the other queue: heartbeats and starts with it are refused from then on."
        )
    if move.leaves_environment:
        yield "Heartbeats that name the environment they come from are refused when that is no longer the worker's."


def _attachment(lines: Iterable[bytes], filename: str) -> StreamingHttpResponse:
    headers = {"Content-Disposition": f'attachment; filename="{filename}"', "Cache-Control": "no-store"}
    return StreamingHttpResponse(lines, content_type="text/csv; charset=utf-8", headers=headers)
