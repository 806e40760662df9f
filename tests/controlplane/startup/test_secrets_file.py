"""What quickstart writes into `.env`: the secrets that are nowhere else, and the port that it was given."""

import os
import re
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import secrets_file
from tests.support.boots import GOOD, Boot

pytestmark = pytest.mark.once


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n"])
def test_what_quickstart_adds_begins_a_line_of_its_own(boot: Boot, end: str) -> None:
    boot.fails(f"PORT=8123{end}")
    secrets_file.ensure()
    assert boot()["SECRET_KEY"]
    assert os.environ["PORT"] == "8123"
    assert boot.path.read_text().count("_KEYS=") == 2


KEYS = "".join(f"{name}={value}\n" for name, value in GOOD.items() if name != "CONTROL_PLANE_URL")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("KEYS\n", "KEYS\nPORT=9000\n"),
        ("KEYS", "KEYS\nPORT=9000\n"),
        ("DEBUG=no\r\nexport PORT = '8123'\r\nKEYS", "DEBUG=no\r\nPORT=9000\r\nKEYS"),
        ("KEYS\nPORT=8123", "KEYS\nPORT=9000"),
        ("PORT='9000'\nKEYS", "PORT='9000'\nKEYS"),
    ],
)
def test_the_port_that_quickstart_is_given_is_told_to_later_commands(boot: Boot, before: str, after: str) -> None:
    before, after = (re.sub(r"\bKEYS\b", lambda _: KEYS.rstrip(), text) for text in (before, after))
    assert boot(before, PORT="9000")["CONTROL_PLANE_URL"] == "http://127.0.0.1:9000"
    secrets_file.keep_port()
    assert boot.path.read_bytes().decode() == after
    assert (boot.path.stat().st_mode & 0o777, [path.name for path in boot.path.parent.iterdir()]) == (0o600, [".env"])
    assert boot()["CONTROL_PLANE_URL"] == "http://127.0.0.1:9000"


def test_without_a_port_quickstart_changes_nothing(boot: Boot) -> None:
    boot(f"# PORT=1\n{KEYS}")
    secrets_file.keep_port()
    assert boot.path.read_text() == f"# PORT=1\n{KEYS}"


def test_who_has_no_file_or_a_link_to_one_keeps_it_so(boot: Boot, tmp_path: Path) -> None:
    boot(KEYS, PORT="9000")
    real = boot.path.rename(tmp_path / "real")
    secrets_file.keep_port()
    assert not boot.path.exists()
    boot.path.symlink_to(real)
    for port in ("9000", "9001"):
        boot(PORT=port)
        secrets_file.keep_port()
    assert (boot.path.is_symlink(), real.read_text()) == (True, f"{KEYS}PORT=9001\n")


def test_where_quickstart_cannot_write_it_says_so(boot: Boot, tmp_path: Path) -> None:
    boot.path = tmp_path / "missing" / ".env"
    with pytest.MonkeyPatch.context() as patch:
        for name in GOOD:
            patch.delenv(name, raising=False)
        patch.setenv("CONTROL_PLANE_ENV_FILE", str(boot.path))
        with pytest.raises(ImproperlyConfigured, match=f"{boot.path} cannot be written"):
            secrets_file.ensure()
