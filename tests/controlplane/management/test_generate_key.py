"""New secrets can be made before there are any, and whatever state the existing ones are in."""

import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from controlplane.startup.secrets_file import KINDS
from environments.encryption import KEY_BYTES, KeyRing
from tests.support.processes import ROOT
from workers.api_keys.tokens import KEY_ID_PREFIX

pytestmark = [pytest.mark.once, pytest.mark.processes]

SECRETS = [name for name, _ in KINDS.values()]


def generated(kind: str) -> str:
    stdout = StringIO()
    call_command("generate_key", kind, stdout=stdout)
    return stdout.getvalue().removesuffix("\n")


def run(*arguments: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process without any secret but those given, and without a `.env` file."""
    kept = {name: value for name, value in os.environ.items() if name.removesuffix("_FILE") not in SECRETS}
    environ = {**kept, "CONTROL_PLANE_ENV_FILE": str(directory / ".env"), **environ}
    command = [sys.executable, "manage.py", "generate_key", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environ, text=True, capture_output=True, check=False, timeout=60)  # noqa: S603


def test_makes_a_secret_key_as_long_as_settings_demand() -> None:
    assert len(generated("secret")) >= 50


@pytest.mark.parametrize(("kind", "prefix"), [("encryption", "ek-"), ("signing", KEY_ID_PREFIX)])
def test_makes_an_entry_of_a_key_ring(kind: str, prefix: str) -> None:
    ring = KeyRing.parse(generated(kind))
    assert len(ring) == 1
    assert ring.active.id.startswith(prefix)
    assert len(ring.active.material) == KEY_BYTES


@pytest.mark.parametrize("kind", ["encryption", "signing"])
def test_an_entry_joins_a_ring_beside_another(kind: str) -> None:
    first, second = generated(kind), generated(kind)
    assert len(KeyRing.parse(f"{first},{second}")) == 2


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_never_makes_the_same_twice(kind: str) -> None:
    assert len({generated(kind) for _ in range(20)}) == 20


def test_refuses_an_unknown_kind() -> None:
    with pytest.raises(CommandError, match="'session'"):
        generated("session")


def test_needs_no_secret_and_writes_no_file(tmp_path: Path) -> None:
    done = run("encryption", directory=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(KeyRing.parse(done.stdout)) == 1
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["", "not-a-ring"])
def test_makes_a_key_where_the_present_one_is_unusable(value: str, tmp_path: Path) -> None:
    """The message about a bad key says to run this command, so it has to run then."""
    done = run("encryption", directory=tmp_path, ENCRYPTION_KEYS=value)
    assert done.returncode == 0, done.stderr
    assert len(KeyRing.parse(done.stdout)) == 1


def test_makes_a_key_where_its_file_is_not_there_yet(tmp_path: Path) -> None:
    done = run("encryption", directory=tmp_path, ENCRYPTION_KEYS_FILE=str(tmp_path / "keys"))
    assert done.returncode == 0, done.stderr
    assert len(KeyRing.parse(done.stdout)) == 1
