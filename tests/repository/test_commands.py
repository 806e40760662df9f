"""Commands in forks are like commands in processes of their own: exit code, input, output, environment."""

import os
import secrets
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.support.commands import Commands

pytestmark = pytest.mark.once

OTHER = secrets.token_urlsafe(48)
SHELL = ("shell", "--no-imports", "--command")
PARENT = "import os; print(os.getppid())"


@pytest.fixture(scope="module")
def manage() -> Iterator[Any]:
    commands = Commands()
    yield partial(commands.run, environ=os.environ)
    commands.close()


def test_a_command_has_input_and_output_of_its_own(manage: Any) -> None:
    code = "import sys; print(sys.stdin.read()); print('aside', file=sys.stderr)"
    for text in ("one", "two"):
        done = manage(*SHELL, code, input=text)
        assert (done.stdout, done.stderr, done.returncode) == (f"{text}\n", "aside\n", 0)


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [("import sys; sys.exit(7)", 7), ("import sys; sys.exit('refused')", 1), ("import os; os.abort()", -6)],
)
def test_a_command_ends_as_it_ends(manage: Any, code: str, exit_code: int) -> None:
    done = manage(*SHELL, code)
    assert done.returncode == exit_code
    assert ("refused" in done.stderr) == ("refused" in code)


def test_what_a_command_changes_ends_with_it(manage: Any) -> None:
    change = "import os; os.environ['OWN'] += '!'; print(os.environ['OWN'])"
    assert [manage(*SHELL, change, more={"OWN": text}).stdout for text in "ab"] == ["a!\n", "b!\n"]
    assert manage(*SHELL, "import os; print('OWN' in os.environ)").stdout == "False\n"


def test_settings_are_loaded_once_and_anew_for_another_environment(manage: Any) -> None:
    first, second = (manage(*SHELL, PARENT).stdout for _ in range(2))
    changed = manage(
        *SHELL,
        PARENT + "; from django.conf import settings; print(settings.SECRET_KEY)",
        environ={**os.environ, "SECRET_KEY": OTHER},
    ).stdout.split()
    assert first == second
    assert changed == [changed[0], OTHER]
    assert changed[0] != first.strip()
