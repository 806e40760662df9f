"""Runs the commands of API keys."""

import re
from io import StringIO
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import transaction

from environments.models import AuditEvent
from workers.models import ApiKey

#: What every API key looks like on the wire: three parts of base64url.
TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}")
UNKNOWN = UUID("00000000-0000-4000-8000-000000000000")


class Done(NamedTuple):
    """What a command wrote."""

    stdout: str
    stderr: str


def run(command: str, *arguments: Any) -> Done:
    stdout, stderr = StringIO(), StringIO()
    call_command(command, *map(str, arguments), stdout=stdout, stderr=stderr)
    return Done(stdout.getvalue(), stderr.getvalue())


def refusal(command: str, *arguments: Any) -> str:
    """The message of a command that fails with exit code 1, prints no key and changes nothing."""
    before = everything()
    stdout, stderr = StringIO(), StringIO()
    with pytest.raises(CommandError) as caught, transaction.atomic():
        call_command(command, *map(str, arguments), stdout=stdout, stderr=stderr)
    assert caught.value.returncode == 1
    assert stdout.getvalue() == ""
    assert everything() == before
    message = str(caught.value)
    assert not TOKEN.search(message + stderr.getvalue())
    return message


def everything() -> list[Any]:
    return [*ApiKey.objects.order_by("pk").values(), *AuditEvent.objects.order_by("pk").values()]
