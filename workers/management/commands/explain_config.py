"""Prints each field that a worker would be given, the level that sets it, and the levels that are shadowed by it."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Model

from environments.connections.levels import ConfigurationIncompleteError
from environments.management.command import ControlPlaneCommand
from environments.management.printing import printable
from workers.api_keys.tokens import UUID_TEXT
from workers.configuration.effective import revision_of, sections_of, show_configuration
from workers.configuration.explanation import Field, Setting, fields_of
from workers.models import Worker
from workers.models.paths import workers_at


class Command(ControlPlaneCommand):
    """The same as on the worker's page. Of secrets the fingerprint; nothing is opened, and nothing is put on record.

    Fails when something is missing, so that a start would be refused.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("worker", help="its id, or organization/environment/queue/worker")

    def handle(self, *, worker: str, **options: Any) -> None:
        row = _worker(worker)
        revision, refusal = _revision(row)
        fields = fields_of(row, _name)
        if options["format"] == "json":
            document = {"worker_id": str(row.pk), "revision": revision, "refusal": refusal}
            self.stdout.write(json.dumps({**document, "fields": [_as_json(field) for field in fields]}))
        else:
            for line in (line for field in fields for line in _lines(field)):
                self.stdout.write(printable(line))
            self.stdout.write(f"revision: {revision or 'none'}")
        if refusal:
            msg = f"A start would be refused. {refusal}"
            raise CommandError(msg)


def _revision(worker: Worker) -> tuple[str | None, str | None]:
    """The revision of what the worker would be given, or what is missing for it."""
    try:
        return revision_of(show_configuration(worker, sections_of(worker)), worker.queue), None
    except ConfigurationIncompleteError as error:
        return None, str(error)


def _worker(text: str) -> Worker:
    workers = Worker.objects.filter(pk=text) if UUID_TEXT.fullmatch(text) else workers_at(text)
    worker = Worker.objects.with_chain().filter(pk__in=workers.values("pk")).first()
    if worker is None:
        msg = "There is no such worker: give its id, or organization/environment/queue/worker."
        raise CommandError(msg)
    return worker


def _name(row: Model, text: str = "") -> str:
    return text or str(row)


def _as_json(field: Field[str]) -> dict[str, Any]:
    settings = [_setting_as_json(setting) for setting in field.settings]
    return {
        "name": field.name,
        "value": field.value,
        "is_fingerprint": field.is_credential,
        "set_by": settings[0] if settings else None,
        "shadowed": settings[1:],
    }


def _setting_as_json(setting: Setting[str]) -> dict[str, str]:
    return {
        "level": setting.level,
        "holder": setting.holder,
        "connection": setting.connection,
        "value": setting.value,
    }


def _lines(field: Field[str]) -> list[str]:
    kind = " (fingerprint)" if field.is_credential else ""
    value = "missing" if field.value is None else field.value
    lines = [f"{field.name}: {value}{kind}  <- {_source(field)}"]
    return lines + [f"    shadowed: {each.value}  <- {_setting(each)}" for each in field.shadowed]


def _source(field: Field[str]) -> str:
    if field.winner:
        return _setting(field.winner)
    if field.origins:
        return " + ".join(field.origins)
    return f"no level has {field.section}" if field.section else "CONTROL_PLANE_URL"


def _setting(setting: Setting[str]) -> str:
    return f"{setting.level} {setting.holder}, by {setting.connection}"
