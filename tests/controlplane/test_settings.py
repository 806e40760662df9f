"""Each refusal of a boot is tried in a process of its own, with an environment of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from environments.encryption import KeyRing, encode, generate_key, key_entry
from tests.support.processes import ROOT

pytestmark = [pytest.mark.once, pytest.mark.processes]

ENCRYPTION, SIGNING = generate_key("ek-1"), generate_key("acp-1")
SECRET_KEY = "s3cr3t-" * 10
GOOD = {
    "SECRET_KEY": SECRET_KEY,
    "ENCRYPTION_KEYS": key_entry(ENCRYPTION),
    "API_KEY_SIGNING_KEYS": key_entry(SIGNING),
    "DATABASE_URL": "sqlite:///var/tmp/test-settings.sqlite3",
}
PRODUCTION = {
    **GOOD,
    "DATABASE_URL": "postgresql://controlplane:hidden@127.0.0.1:1/controlplane",
    "CONTROL_PLANE_URL": "https://controlplane.example.com",
}
LOAD = "from django.conf import settings; settings.DEBUG; print('loaded')"


def run(environ: dict[str, str], *command: str, **streams: Any) -> subprocess.CompletedProcess[str]:
    clean = {
        "PATH": os.environ["PATH"],
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
        "CONTROL_PLANE_ENV_FILE": "/nonexistent",
    }
    return subprocess.run(  # noqa: S603
        [sys.executable, *command],
        cwd=ROOT,
        env=clean | environ,
        text=True,
        check=False,
        timeout=60,
        **(streams or {"capture_output": True}),
    )


def without(name: str) -> dict[str, str]:
    return {key: value for key, value in GOOD.items() if key != name}


#: What is wrong, and what the message has to say.
REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "no SECRET_KEY": (without("SECRET_KEY"), "SECRET_KEY.*generate_key secret"),
    "no ENCRYPTION_KEYS": (without("ENCRYPTION_KEYS"), "ENCRYPTION_KEYS.*generate_key encryption"),
    "no API_KEY_SIGNING_KEYS": (without("API_KEY_SIGNING_KEYS"), "API_KEY_SIGNING_KEYS.*generate_key signing"),
    "empty SECRET_KEY": (GOOD | {"SECRET_KEY": " "}, "SECRET_KEY.*generate_key secret"),
    "short SECRET_KEY": (GOOD | {"SECRET_KEY": "s" * 49}, "SECRET_KEY.*50"),
    "31-byte encryption key": (GOOD | {"ENCRYPTION_KEYS": f"ek-1:{encode(b'k' * 31)}"}, "ENCRYPTION_KEYS.*31 bytes"),
    "16-byte signing key": (
        GOOD | {"API_KEY_SIGNING_KEYS": f"acp-1:{encode(b'k' * 16)}"},
        "API_KEY_SIGNING_KEYS.*16 bytes",
    ),
    "signing key without prefix": (GOOD | {"API_KEY_SIGNING_KEYS": key_entry(generate_key("sk-1"))}, "acp-"),
    "encryption key signs": (
        GOOD | {"API_KEY_SIGNING_KEYS": f"acp-1:{encode(ENCRYPTION.material)}"},
        "must differ",
    ),
    "a former encryption key signs": (
        GOOD | {"ENCRYPTION_KEYS": f"{key_entry(generate_key('ek-2'))},ek-1:{encode(SIGNING.material)}"},
        "must differ",
    ),
    "SECRET_KEY is the signing key": (GOOD | {"SECRET_KEY": encode(SIGNING.material) * 2}, "must differ"),
    "SECRET_KEY is the ring": (GOOD | {"SECRET_KEY": f"padding-{key_entry(ENCRYPTION)}"}, "must differ"),
    "short METRICS_TOKEN": (GOOD | {"METRICS_TOKEN": "m" * 31}, "METRICS_TOKEN.*32"),
    "METRICS_TOKEN is the SECRET_KEY": (GOOD | {"METRICS_TOKEN": SECRET_KEY}, "METRICS_TOKEN.*own"),
    "any host": (PRODUCTION | {"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
    "any host among others": (PRODUCTION | {"ALLOWED_HOSTS": "controlplane.example.com,*"}, "ALLOWED_HOSTS"),
    "any subdomain": (PRODUCTION | {"ALLOWED_HOSTS": ".example.com"}, "ALLOWED_HOSTS"),
    "any host locally": (GOOD | {"ALLOWED_HOSTS": "*"}, "ALLOWED_HOSTS"),
    "a host beyond this machine over http": (GOOD | {"ALLOWED_HOSTS": "controlplane.example.com"}, "https://"),
    "DEBUG with PostgreSQL": (
        GOOD | {"DEBUG": "true", "DATABASE_URL": PRODUCTION["DATABASE_URL"]},
        "DEBUG.*PostgreSQL",
    ),
    "DEBUG beyond this machine": (GOOD | {"DEBUG": "1", "CONTROL_PLANE_URL": "https://a.example.com"}, "DEBUG"),
    "DEBUG is nonsense": (GOOD | {"DEBUG": "maybe"}, "DEBUG"),
    "http beyond this machine": (GOOD | {"CONTROL_PLANE_URL": "http://controlplane.example.com"}, "https://"),
    "URL is nonsense": (GOOD | {"CONTROL_PLANE_URL": "controlplane"}, "CONTROL_PLANE_URL"),
    "another database": (GOOD | {"DATABASE_URL": "mysql://a/b"}, "DATABASE_URL"),
    "both NAME and NAME_FILE": (GOOD | {"SECRET_KEY_FILE": "/etc/hostname"}, "SECRET_KEY_FILE"),
    "NAME_FILE does not exist": (without("SECRET_KEY") | {"SECRET_KEY_FILE": "/nonexistent/key"}, "SECRET_KEY_FILE"),
    "NAME_FILE is a folder": (without("ENCRYPTION_KEYS") | {"ENCRYPTION_KEYS_FILE": "/"}, "ENCRYPTION_KEYS_FILE"),
    "proxies are nonsense": (GOOD | {"TRUSTED_PROXIES": "everyone"}, "TRUSTED_PROXIES"),
    "authorities that are not there": (GOOD | {"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE.*cannot be read"),
    "hosts of connections are nonsense": (GOOD | {"CONNECTION_HOSTS": "*"}, "CONNECTION_HOSTS.*no host"),
    "port is nonsense": (GOOD | {"PORT": "http"}, "PORT"),
    "a limit is nonsense": (GOOD | {"WORKER_STARTS_PER_MINUTE": "0"}, "WORKER_STARTS_PER_MINUTE"),
}


@pytest.mark.parametrize(("environ", "message"), REFUSED.values(), ids=REFUSED)
def test_whatever_is_insecure_or_missing_stops_the_boot(environ: dict[str, str], message: str) -> None:
    done = run(environ, "-c", LOAD)
    assert done.returncode != 0
    assert "loaded" not in done.stdout
    last_line = done.stderr.strip().splitlines()[-1]
    assert "ImproperlyConfigured" in last_line
    assert re.search(message, last_line), last_line
    for secret in (encode(ENCRYPTION.material), encode(SIGNING.material), SECRET_KEY, "hidden"):
        assert secret not in done.stdout + last_line


def test_the_environment_that_these_refusals_start_from_boots() -> None:
    assert run(GOOD, "-c", LOAD).stdout == "loaded\n"
    assert run(PRODUCTION, "-c", LOAD).stdout == "loaded\n"


def test_manage_py_says_in_one_line_what_is_missing() -> None:
    done = run(without("ENCRYPTION_KEYS"), "manage.py", "check")
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert "generate_key encryption" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_traceback(unbuffered: str) -> None:
    """As with `manage.py audit | head`: the command writes into a pipe that nobody reads any more."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:  # noqa: PTH123  # of a descriptor
        done = run(GOOD | {"PYTHONUNBUFFERED": unbuffered}, "manage.py", "help", stdout=stdout, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("kind", ["secret", "encryption", "signing"])
def test_the_key_that_generate_key_makes_needs_no_other_secret_and_is_taken(kind: str) -> None:
    done = run({}, "manage.py", "generate_key", kind)
    assert done.returncode == 0, done.stderr
    if kind == "secret":
        assert len(done.stdout.strip()) >= 50
    else:
        assert len(KeyRing.parse(done.stdout)) == 1


@pytest.mark.parametrize("name", ["SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS", "DATABASE_URL"])
def test_each_secret_can_come_from_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text(f"{GOOD[name]}\n")
    assert run(without(name) | {f"{name}_FILE": str(tmp_path / "secret")}, "-c", LOAD).stdout == "loaded\n"


@pytest.mark.parametrize(
    ("mode", "is_taken"), [(0o600, True), (0o400, True), (0o640, False), (0o604, False), (0o644, False)]
)
def test_secrets_in_a_file_that_others_may_read_stop_the_boot(tmp_path: Path, mode: int, is_taken: bool) -> None:
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in GOOD.items()))
    (tmp_path / ".env").chmod(mode)
    done = run({"CONTROL_PLANE_ENV_FILE": str(tmp_path / ".env")}, "-c", LOAD)
    assert (done.stdout == "loaded\n") is is_taken
    assert is_taken or "chmod 600" in done.stderr


def test_check_deploy_is_clean_in_production() -> None:
    done = run(PRODUCTION, "-W", "error", "manage.py", "check", "--deploy", "--fail-level", "WARNING")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no issues" in done.stdout + done.stderr


PRODUCTION_VALUES: dict[str, str] = {
    "DEBUG": "False",
    "ALLOWED_HOSTS": "['controlplane.example.com']",
    "SESSION_COOKIE_NAME": "__Host-sessionid",
    "CSRF_COOKIE_NAME": "__Host-csrftoken",
    "SESSION_COOKIE_SECURE": "True",
    "SESSION_COOKIE_HTTPONLY": "True",
    "SESSION_COOKIE_SAMESITE": "Lax",
    "CSRF_COOKIE_SECURE": "True",
    "SECURE_SSL_REDIRECT": "True",
    "SECURE_HSTS_SECONDS": "31536000",
    "X_FRAME_OPTIONS": "DENY",
    "SESSION_COOKIE_DOMAIN": "None",
    "SESSION_COOKIE_PATH": "/",
}


def test_production_is_closed() -> None:
    names = list(PRODUCTION_VALUES)
    script = f"from django.conf import settings\nfor name in {names}: print(getattr(settings, name))"
    assert dict(zip(names, run(PRODUCTION, "-c", script).stdout.splitlines(), strict=True)) == PRODUCTION_VALUES
