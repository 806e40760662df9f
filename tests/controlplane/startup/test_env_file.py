"""Settings as people write them, in `.env`, in the environment and in files: read, or refused by name and line."""

import os
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import secrets_file
from environments.encryption import encode
from tests.support.boots import GOOD, RING, SECRET, TOKEN, Boot

pytestmark = pytest.mark.once


def written(template: str = "{}={}", **more: str) -> str:
    return "".join(f"{template.format(name, value)}\n" for name, value in {**GOOD, **more}.items())


# --- What is read ------------------------------------------------------------------------------------------------------

WRITTEN: dict[str, bytes] = {
    "plain": written().encode(),
    "in double quotes": written('{}="{}"').encode(),
    "in single quotes": written("{}='{}'").encode(),
    "exported": written("export {}={}").encode(),
    "exported with blanks": written("  export   {} = '{}'  ").encode(),
    "blanks around the sign": written("{} = {}").encode(),
    "blanks before": written("\t{}={}").encode(),
    "a comment after a quoted value": written('{}="{}" # a comment').encode(),
    "a mark at the beginning": written().encode("utf-8-sig"),
    "the line ends of Windows": written().replace("\n", "\r\n").encode(),
    "the line ends of old Macs": written().replace("\n", "\r").encode(),
    "no line end": written().rstrip().encode(),
    "comments beyond ASCII": f"# für später\n  # “quoted”\n\n{written()}".encode(),
}


@pytest.mark.parametrize("file", WRITTEN.values(), ids=WRITTEN)
def test_the_file_is_read_however_it_is_written(boot: Boot, file: bytes) -> None:
    settings = boot(file)
    assert settings["SECRET_KEY"] == SECRET
    assert [encode(key.material) for key in settings["ENCRYPTION_KEYS"].values()] == [RING.partition(":")[2]]
    assert settings["CONTROL_PLANE_URL"] == "https://cp.example.com"
    assert settings["ALLOWED_HOSTS"] == ["cp.example.com"]


def test_what_is_quoted_may_hold_what_would_mean_something_else(boot: Boot) -> None:
    settings = boot(written(OIDC_NAME='"Team #1 \\"ours\\""', **OIDC))
    assert settings["OIDC_NAME"] == 'Team #1 "ours"'


OIDC = {"OIDC_SERVER_URL": "https://login.example.com/realm", "OIDC_CLIENT_ID": "cp", "OIDC_CLIENT_SECRET": "x" * 20}
#: Each as Docker's --env-file passes it on, quotes included; the setting, and what it is then.
QUOTED: dict[str, tuple[dict[str, str], str, Any]] = {
    "METRICS_TOKEN": ({"METRICS_TOKEN": f'"{TOKEN}"'}, "METRICS_TOKEN", TOKEN),
    "ALLOWED_HOSTS": ({"ALLOWED_HOSTS": "'CP.example.com., ::1'"}, "ALLOWED_HOSTS", ["cp.example.com", "[::1]"]),
    "DEBUG": ({"DEBUG": '"false"'}, "DEBUG", False),
    "SECRET_KEY": ({"SECRET_KEY": f'\ufeff"{SECRET}"'}, "SECRET_KEY", SECRET),
    "REQUIRE_SECOND_FACTOR": ({"REQUIRE_SECOND_FACTOR": "'true'"}, "REQUIRE_SECOND_FACTOR", True),
    "OIDC": ({name: f'"{value}"' for name, value in OIDC.items()}, "OIDC_NAME", "single sign-on"),
}


@pytest.mark.parametrize(("environ", "name", "value"), QUOTED.values(), ids=QUOTED)
def test_quotes_around_a_value_of_the_environment_are_not_part_of_it(
    boot: Boot, environ: dict[str, str], name: str, value: Any
) -> None:
    assert boot(**{**GOOD, **environ})[name] == value


def test_quotes_around_lists_of_networks_and_hosts(boot: Boot) -> None:
    settings = boot(**GOOD, TRUSTED_PROXIES='"10.0.0.0/8,::1"', CONNECTION_HOSTS="'temporal.internal'")
    assert [str(network) for network in settings["TRUSTED_PROXIES"]] == ["10.0.0.0/8", "::1/128"]
    assert [entry.pattern for entry in settings["CONNECTION_HOSTS"]] == ["temporal.internal"]


# --- What stops the boot -----------------------------------------------------------------------------------------------

#: A setting, a value that cannot work, and what the message says beside name and line.
WRONG: list[tuple[str, str, str]] = [
    *(
        ("ALLOWED_HOSTS", value, "host names only")
        for value in (
            "https://cp.example.com",
            "cp.example.com:443",
            '["cp.example.com"]',
            "cp.example.com localhost",
            "cp.example.com/",
            "cp_1.example.com",
            "bücher.example.com",
            "cp.example.com;b.example.com",
            "[::1",
            "1.2.3.999",
        )
    ),
    ("ALLOWED_HOSTS", ",", "names nothing"),
    ("ALLOWED_HOSTS", "*.example.com", "refused"),
    *(
        ("TRUSTED_PROXIES", value, "")
        for value in ('["10.0.0.1"]', "10.0.0.1 10.0.0.2", "[::1]", "::ffff:10.0.0.1", ",")
    ),
    *(("CONNECTION_HOSTS", value, "") for value in ('["a.example.com"]', "a.example.com b.example.com", ",")),
    *(
        ("METRICS_TOKEN", value, "32")
        for value in ("t" * 31, f"{TOKEN} x", f"{TOKEN}é", f'[{TOKEN}"', f"Bearer {TOKEN}")
    ),
    *(
        ("CONTROL_PLANE_URL", value, "")
        for value in (
            "https://cp.example.com/fleet",
            "cp.example.com",
            "https://cp_1.example.com",
            "http://cp.example.com",
        )
    ),
    ("CONTROL_PLANE_URL", "https://user:hidden@cp.example.com", ""),
    ("DATABASE_URL", "postgresql://u:hidden@h/d?pgbouncer=true", "pgbouncer"),
    ("DATABASE_URL", "postgres//u:hidden@h/d", "postgresql://"),
    ("DATABASE_URL", "sqlite:///:memory:", "memory"),
    ("DATABASE_STATEMENT_TIMEOUT", "5 seconds", "5s"),
    *(("TRUSTED_PROXIES", value, "everybody") for value in ("0.0.0.0/0", "10.0.0.0/8,::/0")),
    *(
        (name, value, "write the value itself")
        for name, value in {
            "SECRET_KEY": "${SECRET_KEY:-" + "x" * 50 + "}",
            "METRICS_TOKEN": "${METRICS_TOKEN}${METRICS_TOKEN}",
            "ENCRYPTION_KEYS": "$(cat /run/secrets/ring)",
            "API_KEY_SIGNING_KEYS": "$SIGNING_KEYS",
            "DATABASE_URL": "postgresql://u:${PASSWORD}@h/d",
        }.items()
    ),
    ("DEBUG", "falsch", "true or false"),
    ("DEBUG", "false;", "true or false"),
    ("PORT", "8000/tcp", "whole number"),
    ("PORT", "80000", "65535"),
    ("ENCRYPTION_KEYS", RING[:-2], ""),
    ("ENCRYPTION_KEYS", f"[{RING}]", ""),
    ("API_KEY_SIGNING_KEYS", RING, "acp-"),
    ("SECRET_KEY", f"{SECRET}\u200b", "printable"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318", "http"),
]


@pytest.mark.parametrize(("name", "value", "reason"), WRONG, ids=[f"{name} {value!r}"[:70] for name, value, _ in WRONG])
@pytest.mark.parametrize("template", ["{}={}", "export {} = '{}'"])
def test_a_setting_that_cannot_work_is_named_with_its_line(
    boot: Boot, name: str, value: str, reason: str, template: str
) -> None:
    others = {other: text for other, text in GOOD.items() if other != name}
    lines = [*(f"{other}={text}" for other, text in others.items()), "# a comment", template.format(name, value)]
    message = boot.fails("\n".join(lines))
    assert name in message
    assert f"line {len(lines)}" in message
    assert reason in message
    assert "generate_key encryption" not in message
    assert "generate_key signing" not in message


@pytest.mark.parametrize(("name", "value", "reason"), WRONG, ids=[f"{name} {value!r}"[:70] for name, value, _ in WRONG])
def test_a_setting_of_the_environment_that_cannot_work_is_named(boot: Boot, name: str, value: str, reason: str) -> None:
    message = boot.fails(**{**GOOD, name: value})
    assert message.startswith(name)
    assert reason in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("OIDC_SERVER_URL", "login.example.com"), ("OIDC_CLIENT_ID", "c p"), ("OIDC_CLIENT_SECRET", '"x')],
)
def test_single_sign_on_that_cannot_work_is_named(boot: Boot, name: str, value: str) -> None:
    assert boot.fails(**{**GOOD, **OIDC, name: value}).startswith(name)


#: A line that is no assignment, or not clearly one.
ODD_LINES = {
    "no sign": "SECRET_KEY",
    "YAML": f"ENCRYPTION_KEYS: {RING}",
    "PowerShell": '$env:DEBUG = "false"',
    "fish": "set -x DEBUG false",
    "two names": "export DEBUG PORT=8123",
    "an open quote": 'DEBUG="false',
    "something after the quote": "DEBUG='false'x",
    "a list of quotes": 'ALLOWED_HOSTS="a.example.com","b.example.com"',
    "quotes for print": "DEBUG=“false”",
    "a comment that may be meant": "DEBUG=false # for now",
    "twice": f"SECRET_KEY={SECRET}",
}


@pytest.mark.parametrize("line", ODD_LINES.values(), ids=ODD_LINES)
def test_an_odd_line_is_named_by_its_number_and_not_shown(boot: Boot, line: str) -> None:
    message = boot.fails(f"{written()}\n{line}\n")
    assert f"line {len(GOOD) + 2}" in message
    assert line.partition("=")[2] == "" or line.partition("=")[2] not in message


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (b"# a comment\n# f\xfcr sp\xe4ter\n" + written().encode(), 2),
        (written().encode("utf-16"), 1),
        (written().encode("utf-16-le"), 1),
        (written().encode("utf-32"), 1),
    ],
    ids=["Latin-1", "UTF-16", "UTF-16 without a mark", "UTF-32"],
)
def test_a_file_in_another_encoding_is_named_with_the_line(boot: Boot, file: bytes, line: int) -> None:
    message = boot.fails(file)
    assert f"{boot.path} cannot be read: line {line}" in message
    assert "UTF-8" in message


def test_a_file_that_is_none_is_named(boot: Boot) -> None:
    boot.path.mkdir(mode=0o700)
    assert "not a regular file" in boot.fails()
    boot.path.rmdir()
    os.mkfifo(boot.path, 0o600)
    assert "not a regular file" in boot.fails()
    boot.path.unlink()


# --- NAME_FILE ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS", "DATABASE_URL"])
@pytest.mark.parametrize("form", ["{}\n", "\ufeff{}\r\n", '"{}"', " {} "])
def test_a_named_file_is_read_however_it_is_written(boot: Boot, tmp_path: Path, name: str, form: str) -> None:
    others = {other: value for other, value in GOOD.items() if other != name}
    (tmp_path / "file").write_text(form.format(GOOD[name]), encoding="utf-8", newline="")
    named = boot(**others, **{f"{name}_FILE": f'"{tmp_path}/file"'})[{"DATABASE_URL": "DATABASES"}.get(name, name)]
    plain = boot(**GOOD)[{"DATABASE_URL": "DATABASES"}.get(name, name)]
    assert str(named) == str(plain)


@pytest.mark.parametrize("kind", ["UTF-16", "Latin-1", "a folder", "a pipe", "a device", "nothing", "two lines"])
def test_a_named_file_that_cannot_be_a_setting_is_named(boot: Boot, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    match kind:
        case "UTF-16":
            path.write_text(GOOD["DATABASE_URL"], encoding="utf-16")
        case "Latin-1":
            path.write_text(f"{GOOD['DATABASE_URL']}ü", encoding="latin-1")
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "a device":
            path.symlink_to("/dev/zero")
        case "two lines":
            path.write_text(f"{GOOD['DATABASE_URL']}\n{GOOD['DATABASE_URL']}\n")
    others = {other: value for other, value in GOOD.items() if other != "DATABASE_URL"}
    message = boot.fails(**others, DATABASE_URL_FILE=str(path))
    assert "DATABASE_URL" in message
    assert str(path) in message


# --- Keys that are there are not to be made anew -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ENCRYPTION_KEYS", "SECRET_KEY"])
@pytest.mark.parametrize(
    "line",
    [
        *("{}=", '{}=""', "# {}=ek-1:AAAA", "{}_FILE=", "#export {}=x", "{lower}=x"),
        *("{}_1=x", "CP_{}=x", "X{}=x", "{slip}=x"),
    ],
)
def test_who_has_a_key_that_is_not_read_is_not_told_to_make_another(boot: Boot, name: str, line: str) -> None:
    others = "".join(f"{other}={value}\n" for other, value in GOOD.items() if other != name)
    slip = {"ENCRYPTION_KEYS": "ENCRYPTION_KEY", "SECRET_KEY": "SECERT_KEY"}[name]
    before = f"{others}{line.format(name, lower=name.lower(), slip=slip)}\n"
    message = boot.fails(before)
    assert message.startswith(name)
    assert f"line {len(GOOD)}" in message
    assert "generate_key" not in message
    with pytest.raises(ImproperlyConfigured, match=name):
        secrets_file.ensure()
    assert boot.path.read_text() == before


def test_a_key_that_the_environment_sets_to_nothing_is_not_to_be_made_anew(boot: Boot) -> None:
    message = boot.fails(written(), ENCRYPTION_KEYS="")
    assert "generate_key" not in message
    assert "line 2" in message


def test_a_key_whose_file_is_empty_is_to_be_put_back_first(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "ring").write_text("\n")
    others = {other: value for other, value in GOOD.items() if other != "ENCRYPTION_KEYS"}
    message = boot.fails(**others, ENCRYPTION_KEYS_FILE=str(tmp_path / "ring"))
    assert message.startswith(f"ENCRYPTION_KEYS (from {tmp_path}/ring): the file is empty. Put back what was in it")


def test_a_key_that_is_nowhere_is_to_be_made(boot: Boot) -> None:
    assert "generate_key encryption" in boot.fails("# nothing\n", SECRET_KEY=SECRET)
