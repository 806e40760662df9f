"""Texts, files of settings and rings of keys."""

import os
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import env
from environments.encryption import encode, generate_key, key_entry
from tests.support.env_values import NAME
from tests.support.special_files import SPECIAL_FILES, make_special_file

pytestmark = pytest.mark.once


KEYS = [generate_key("acp-one"), generate_key("acp-two")]


def test_reads_the_variable_without_white_space_around(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "  value\n")
    assert env.text(NAME, "default") == "value"


def test_reads_the_file_that_name_file_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    assert env.text(NAME) == "from the file"
    assert env.required(NAME, "secret") == "from the file"


def test_refuses_both_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from the file")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    monkeypatch.setenv(NAME, "value")
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_FILE") as caught:
        env.text(NAME)
    assert "value" not in str(caught.value)


@pytest.mark.parametrize("kind", SPECIAL_FILES)
def test_refuses_what_is_no_regular_file_and_does_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    reason = make_special_file(tmp_path / "secret", kind)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured) as caught:
        env.text(NAME)
    assert f"{NAME}_FILE: {tmp_path / 'secret'} cannot be read ({reason}" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"x" * 65_537, "it has more than 65,536 bytes"), (b"a\0b", "no text at all")]
)
def test_refuses_what_is_no_secret(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured, match=reason):
        env.text(NAME)


@pytest.mark.parametrize("name", ["no-such-file", "."])
def test_refuses_a_file_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / name))
    with pytest.raises(ImproperlyConfigured, match=f"{NAME}_FILE.*cannot be read"):
        env.text(NAME)


def test_an_empty_file_is_a_missing_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    with pytest.raises(ImproperlyConfigured, match="generate_key secret"):
        env.required(NAME, "secret")


def write_env_file(text: str, mode: int = 0o600) -> None:
    env.env_file().write_text(text)
    env.env_file().chmod(mode)


def test_the_file_fills_in_what_the_environment_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "before")
    monkeypatch.delenv(NAME)  # so that what the file adds is undone, too
    write_env_file(f"# a comment\n\n{NAME}=a=b\n")
    env.load_env_file()
    assert env.text(NAME) == "a=b"


def test_the_environment_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, "environment")
    write_env_file(f"{NAME}=file\n")
    env.load_env_file()
    assert env.text(NAME) == "environment"


def test_a_named_file_in_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("named file")
    monkeypatch.setenv(f"{NAME}_FILE", str(tmp_path / "secret"))
    write_env_file(f"{NAME}=file\n")
    env.load_env_file()
    assert env.text(NAME) == "named file"
    assert NAME not in os.environ


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o601, 0o777])
def test_refuses_a_file_that_others_may_read(mode: int) -> None:
    write_env_file(f"{NAME}=file\n", mode)
    with pytest.raises(ImproperlyConfigured, match="chmod 600"):
        env.load_env_file()
    assert NAME not in os.environ


def test_reads_a_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, ",".join(map(key_entry, KEYS)))
    ring = env.key_ring(NAME, "signing", prefix="acp-")
    assert list(ring) == ["acp-one", "acp-two"]
    assert ring.active.id == "acp-one"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "words",
        f"acp-one:{encode(b'k' * 31)}",
        f"acp-one:{encode(b'k' * 33)}",
        f"acp-one:{encode(b'k' * 16)}",
        f"{key_entry(KEYS[0])},{key_entry(KEYS[0])}",
        f"{key_entry(KEYS[0])},acp-other:{encode(KEYS[0].material)}",
        key_entry(generate_key("other-prefix")),
        f"{key_entry(KEYS[0])},{key_entry(generate_key('ACP-upper'))}",
    ],
    ids=[
        "missing",
        "words",
        "31 bytes",
        "33 bytes",
        "16 bytes",
        "twice",
        "twice under two ids",
        "prefix",
        "prefix of the second",
    ],
)
def test_refuses_a_malformed_ring_naming_it_and_how_to_make_one(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME) as caught:
        env.key_ring(NAME, "signing", prefix="acp-")
    assert "generate_key signing" in str(caught.value) or "does not begin with" in str(caught.value)
    for key in KEYS:
        assert encode(key.material) not in str(caught.value)
