"""What a command says when the database fails before it has printed anything, and when it has."""

import io
import os
import subprocess
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection

from tests.support.factories import Fleet
from tests.support.processes import ROOT


def test_a_command_that_finds_no_database_does_not_speak_of_what_is_printed() -> None:
    environ = os.environ | {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "manage.py", "sweep"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("CommandError: The database failed before there was anything to print (")


GONE = "gone"


class Printed(io.StringIO):
    """With the first line that is printed the database goes."""

    def __call__(self, execute: Any, *asked: Any) -> Any:
        if self.getvalue():
            raise OperationalError(GONE)
        return execute(*asked)


@pytest.mark.parametrize("format_", ["text", "json"])
def test_what_was_printed_before_the_database_failed_is_said_to_be_incomplete(fleet: Fleet, format_: str) -> None:
    fleet.temporal.host = "169.254.169.254:7233"  # where the guard never connects to
    fleet.temporal.save()
    printed = Printed()
    with connection.execute_wrapper(printed), pytest.raises(CommandError) as failed:
        call_command("sweep", f"--format={format_}", stdout=printed)
    assert "never connects" in printed.getvalue()
    assert str(failed.value) == "The database failed partway. What is printed is correct but incomplete (gone)."


@pytest.mark.parametrize(("command", "code"), [("sweep", 1), ("list_workers", 2), ("audit", 1)])
def test_nothing_is_said_of_it_where_nothing_was_printed(fleet: Fleet, command: str, code: int) -> None:
    out = io.StringIO()

    def refuse(*_: Any) -> Any:
        raise OperationalError(GONE)

    with connection.execute_wrapper(refuse), pytest.raises(CommandError) as failed:
        call_command(command, stdout=out)
    assert out.getvalue() == ""
    assert str(failed.value) == "The database failed before there was anything to print (gone)."
    assert failed.value.returncode == code
