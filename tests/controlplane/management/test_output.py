"""What commands do when nobody takes what they print: they end quietly, or with one sentence, and never with success."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class

from environments.management.command import ControlPlaneCommand
from tests.support.commands import Commands
from tests.support.databases import MakeDatabase
from tests.support.processes import ROOT

PRINTING = {
    "audit": ("audit",),
    "audit as JSON": ("audit", "--format=json"),
    "doctor": ("doctor",),
    "export": ("export",),
    "issue_api_key": ("issue_api_key", "--organization=seed-1", "--name=unread"),
    "list_workers": ("list_workers", "--fail-if-any"),
    "list_workers as JSON": ("list_workers", "--format=json"),
    "prune_starts": ("prune_starts", "--older-than=1d", "--dry-run"),
    "showmigrations": ("showmigrations",),
}
#: Django's own are changed in one respect each, and the others print for people who start something.
WITHOUT_FORMAT = {"migrate", "loaddata", "serve", "generate_key"}

pytestmark = pytest.mark.sqlite


@pytest.fixture(scope="module")
def environ(migrated_database: MakeDatabase) -> dict[str, str]:
    """A database of its own; what is printed is written at once."""
    return os.environ | {"DATABASE_URL": migrated_database("output"), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def run(environ: dict[str, str]) -> Iterator[Any]:
    """Runs commands where there are some rows of each kind."""
    commands = Commands()
    counts = ("--organizations=1", "--queues=2", "--workers=20", "--starts=20", "--output=/dev/null")
    assert commands.run("seed_fleet", *counts, environ=environ).returncode == 0
    yield partial(commands.run, environ=environ)
    commands.close()


@contextmanager
def unread() -> Iterator[Path]:
    """A pipe that nobody reads from."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{writer}")
    finally:
        os.close(writer)


def manage(environ: dict[str, str], *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs one in a process of its own, for what is about how that begins."""
    command = [sys.executable, "manage.py", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, text=True, check=False, **options)  # noqa: S603


@pytest.mark.parametrize("arguments", PRINTING.values(), ids=PRINTING)
def test_a_reader_who_has_seen_enough_ends_it_quietly(run: Any, arguments: tuple[str, ...]) -> None:
    with unread() as stdout:
        done = run(*arguments, onto={"stdout": stdout})
    assert done.returncode == 141
    assert not [word for word in ("Traceback", "ignored", "Error") if word in done.stderr], done.stderr


def test_nobody_hears_of_progress_either(environ: dict[str, str], run: Any) -> None:
    with unread() as path, path.open("w") as both:
        assert manage(environ, "doctor", stdout=both, stderr=both).returncode == 141


@pytest.mark.parametrize("arguments", [PRINTING["list_workers"], PRINTING["issue_api_key"]])
def test_what_cannot_be_written_is_said_in_a_sentence(run: Any, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, onto={"stdout": Path("/dev/full")})
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "Stopped: No space left on device."


@pytest.mark.parametrize("closed", [1, 2])
def test_closed_output_is_no_traceback_and_takes_nobodys_place(environ: dict[str, str], closed: int) -> None:
    done = manage(environ, "list_workers", capture_output=True, preexec_fn=lambda: os.close(closed))
    assert done.returncode == 1
    assert (done.stdout, "Traceback" in done.stderr) == ("", False)
    assert ("have to be open" in done.stderr) is (closed == 1)


def test_what_the_database_refuses_is_said_in_a_sentence(run: Any) -> None:
    """Django looks for the same name only, so of two that differ in case it hears from the database."""
    for name in ("root", "Root"):
        done = run("createsuperuser", "--noinput", f"--username={name}", "--email=root@example.com")
    assert done.returncode == 1
    assert done.stderr.startswith("Database: ")
    assert done.stderr.endswith("such as a name that is taken.\n")


def test_every_command_of_ours_shares_how_it_prints() -> None:
    ours = {name: app for name, app in get_commands().items() if app in {"controlplane", "environments", "workers"}}
    for name in ours.keys() - WITHOUT_FORMAT:
        command = load_command_class(ours[name], name)
        assert isinstance(command, ControlPlaneCommand), name
        assert "--format" in command.create_parser("manage.py", name).format_help()
