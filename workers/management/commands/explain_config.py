"""Prints each field that a worker would be given, the level that sets it, and the levels that are shadowed by it."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db.models import Model
from django.utils import timezone

from environments.management.command import ControlPlaneCommand
from environments.management.printing import printable
from workers.api_keys.tokens import UUID_TEXT
from workers.configuration.effective import revision_or_reason
from workers.configuration.explanation import Field, Setting, fields_of
from workers.lifecycle.decisions import refusal_of_start
from workers.models import Worker
from workers.models.paths import workers_at


class Command(ControlPlaneCommand):
    """The same as on the worker's page. Of secrets the fingerprint; nothing is opened, and nothing is put on record.

    Fails when a start would be refused, since something is missing or somebody decided so.
    """

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("worker", help="its id, or organization/environment/queue/worker")

    def handle(self, *, worker: str, **options: Any) -> None:
        row = _worker(worker)
        revision, refusal = revision_or_reason(row)
        refusal = refusal_of_start(row, timezone.now()) or refusal
        fields = fields_of(row, _name)
        if options["format"] == "json":
            document = {"worker_id": str(row.pk), "revision": revision or None, "refusal": refusal or None}
            self.stdout.write(json.dumps({**document, "fields": [_as_json(field) for field in fields]}))
        else:
            for line in (line for field in fields for line in _lines(field)):
                self.stdout.write(printable(line))
            self.stdout.write(f"revision: {revision or 'none'}")
        if refusal:
            msg = f"A start would be refused. {refusal}"
            raise CommandError(msg)


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
