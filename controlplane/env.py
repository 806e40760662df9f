"""Reads settings from environment variables, each secret also from the file that NAME_FILE names.

A `.env` file beside `manage.py` (or at CONTROL_PLANE_ENV_FILE) fills in what the environment does not set; `quickstart`
writes one.
"""

import ipaddress
import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from controlplane import private_files
from environments.connection_hosts import AllowedHost, HostError
from environments.encryption import KeyRing, KeyRingError

ROOT = Path(__file__).resolve().parent.parent
#: Seconds that a request waits for its database, so that every answer comes within five; a command waits longer.
PATIENCE = 3
PATIENCE_OF_COMMANDS = 20
#: Seconds that a connection to a database is kept. Opening SQLite's file for each request would double what that costs.
CONNECTION_SECONDS = 300


def env_file() -> Path:
    """Where the `.env` file is, or would be."""
    return Path(os.environ.get("CONTROL_PLANE_ENV_FILE") or ROOT / ".env")


def load_env_file() -> None:
    """Adds the file's NAME=value lines to the environment, which wins; refuses a file that others can read."""
    path = env_file()
    if not path.exists():
        return
    if private_files.is_open_to_others(path):
        msg = f"{path} holds secrets and others may read it: run chmod 600 {path}"
        raise ImproperlyConfigured(msg)
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            msg = f"{path}, line {number}: expected NAME=value"
            raise ImproperlyConfigured(msg)
        if f"{name}_FILE" not in os.environ:
            os.environ.setdefault(name, value)


def text(name: str, default: str = "") -> str:
    """The variable, or what its NAME_FILE holds, or the default."""
    path = os.environ.get(f"{name}_FILE")
    if path and os.environ.get(name):
        msg = f"Both {name} and {name}_FILE are set: keep one."
        raise ImproperlyConfigured(msg)
    if path:
        try:
            return Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", "it is not text")
            msg = f"{name}_FILE: {path} cannot be read ({reason})."
            raise ImproperlyConfigured(msg) from None
    return os.environ.get(name, default).strip()


def required(name: str, kind: str) -> str:
    """A secret without which there is no boot; the message says how to make one."""
    value = text(name)
    if not value:
        msg = f"{name} (or {name}_FILE) is not set. Make one with: python manage.py generate_key {kind}"
        raise ImproperlyConfigured(msg)
    return value


def key_ring(name: str, kind: str, prefix: str = "") -> KeyRing:
    """A ring of 32-byte keys, the first active."""
    try:
        ring = KeyRing.parse(required(name, kind))
    except KeyRingError as error:
        msg = f"{name}: {error}. Make one with: python manage.py generate_key {kind}"
        raise ImproperlyConfigured(msg) from None
    if strangers := [key_id for key_id in ring if not key_id.startswith(prefix)]:
        msg = f"{name}: key id {strangers[0]!r} does not begin with {prefix!r}."
        raise ImproperlyConfigured(msg)
    return ring


def boolean(name: str) -> bool:
    """True for true, 1, yes, on; False for false, 0, no, off and when not set."""
    value = text(name, "false").lower()
    if value in {"true", "1", "yes", "on"}:
        return True
    if value in {"false", "0", "no", "off", ""}:
        return False
    msg = f"{name} is true or false, not {value!r}."
    raise ImproperlyConfigured(msg)


def positive_integer(name: str, default: int) -> int:
    """A whole number from 1."""
    value = text(name, str(default))
    if not value.isascii() or not value.isdigit() or int(value) < 1:
        msg = f"{name} is a whole number from 1, not {value!r}."
        raise ImproperlyConfigured(msg)
    return int(value)


def words(name: str, default: str = "") -> list[str]:
    """A list parted by commas."""
    return [word.strip() for word in text(name, default).split(",") if word.strip()]


def networks(name: str, default: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """A list of addresses or networks parted by commas."""
    try:
        return [ipaddress.ip_network(word) for word in words(name, default)]
    except ValueError as error:
        msg = f"{name}: {error}."
        raise ImproperlyConfigured(msg) from None


def connection_hosts(name: str) -> tuple[AllowedHost, ...]:
    """What connections may lead to: hosts, *.domains, addresses or networks, each with or without a port."""
    entries = []
    for entry in words(name):
        try:
            entries.append(AllowedHost.parse(entry))
        except HostError as error:
            msg = f"{name}: {entry!r} is no host, host:port, *.domain or network. {error}"
            raise ImproperlyConfigured(msg) from None
    if text(name) and not entries:
        msg = f"{name} is set, but names no host."
        raise ImproperlyConfigured(msg)
    return tuple(entries)


def is_loopback(host: str | None) -> bool:
    """Whether a host name or address is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def control_plane_url(default: str) -> str:
    """The URL that workers are told, without a trailing slash; https unless it is this machine's."""
    url = text("CONTROL_PLANE_URL", default).rstrip("/")
    try:
        parts = urlsplit(url)
        is_valid = (
            parts.scheme in {"http", "https"}
            and parts.hostname
            and not (parts.query or parts.fragment or parts.username)
        )
        _ = parts.port
    except ValueError:
        is_valid = False
    if not is_valid:
        msg = f"CONTROL_PLANE_URL is an http(s) URL such as https://controlplane.example.com, not {url!r}."
        raise ImproperlyConfigured(msg)
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        msg = "CONTROL_PLANE_URL hands out secrets, so beyond this machine it begins with https://."
        raise ImproperlyConfigured(msg)
    return url


def openid_connect() -> tuple[str, dict[str, object]]:
    """The provider's name, "" without one, and allauth's SOCIALACCOUNT_PROVIDERS; all of it is set or nothing."""
    names = ("OIDC_SERVER_URL", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")
    values = [text(name) for name in names]
    if not any([*values, text("OIDC_NAME")]):
        return "", {}
    if not all(values):
        missing = ", ".join(name for name, value in zip(names, values, strict=True) if not value)
        msg = f"Single sign-on is set up in part only. Not set: {missing}. Set all of {', '.join(names)}, or none."
        raise ImproperlyConfigured(msg)
    url, client_id, secret = values
    try:
        parts = urlsplit(url)
        is_local = parts.scheme == "http" and is_loopback(parts.hostname)
        is_safe = bool(parts.hostname) and (parts.scheme == "https" or is_local)
    except ValueError:
        is_safe = False
    if not is_safe:
        msg = "OIDC_SERVER_URL says who may sign in, so it is an https:// URL such as https://login.example.com/realm."
        raise ImproperlyConfigured(msg)
    name = text("OIDC_NAME", "single sign-on")[:40] or "single sign-on"
    app = {"provider_id": "oidc", "name": name, "client_id": client_id, "secret": secret}
    settings = {"server_url": url.rstrip("/"), "oauth_pkce_enabled": True}
    return name, {"openid_connect": {"APPS": [{**app, "settings": settings}]}}


def database(url: str) -> dict[str, object]:
    """Django's DATABASES entry for sqlite:///path or postgresql://user:password@host:port/name?option=value."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return _sqlite(unquote(parts.path))
    if parts.scheme in {"postgresql", "postgres"}:
        return _postgresql(url)
    msg = "DATABASE_URL begins with sqlite:/// or postgresql://."
    raise ImproperlyConfigured(msg)


def _sqlite(path: str) -> dict[str, object]:
    """sqlite:///relative (to the project) or sqlite:////absolute."""
    name = ROOT / path.removeprefix("/")
    if not path.removeprefix("/"):
        msg = "DATABASE_URL: sqlite:/// lacks the path of a file."
        raise ImproperlyConfigured(msg)
    private_files.make_folder(name.parent)
    if name.parent == ROOT / "var":  # another folder may have other uses
        private_files.close(name.parent)
    private_files.close_database(name)
    return {
        "ENGINE": "controlplane.engines.sqlite3",
        "NAME": name,
        "CONN_MAX_AGE": CONNECTION_SECONDS,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": PATIENCE_OF_COMMANDS if _is_command() else PATIENCE,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def _postgresql(url: str) -> dict[str, object]:
    """The URL is handed to libpq as it is, so that several hosts and every libpq option work.

    DATABASE_IS_POOLED says that it leads to a pooler such as PgBouncer in transaction mode.
    """
    from psycopg import ProgrammingError  # noqa: PLC0415  # not needed with SQLite
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        options = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError:
        msg = "DATABASE_URL is not a valid postgresql:// URL."
        raise ImproperlyConfigured(msg) from None
    name = options.pop("dbname", None)
    if not name:
        msg = "DATABASE_URL: the postgresql:// URL lacks the name of a database."
        raise ImproperlyConfigured(msg)
    is_pooled = boolean("DATABASE_IS_POOLED")
    # Such a pooler hands these on to nobody: behind one they are the role's. With PostgreSQL's 4 MB the dashboard's
    # statement sorts 100,000 workers on disk.
    statement_timeout = text("DATABASE_STATEMENT_TIMEOUT", "5s")
    limits = f"-c lock_timeout=2s -c statement_timeout={statement_timeout} -c work_mem=16MB"
    own_options = str(options.pop("options", ""))
    session = (own_options if is_pooled else f"{limits} {own_options}").strip()
    return {
        "ENGINE": "controlplane.engines.postgresql",
        "NAME": name,
        "USER": options.pop("user", ""),
        "PASSWORD": options.pop("password", ""),
        "HOST": options.pop("host", ""),
        "PORT": options.pop("port", ""),
        "CONN_MAX_AGE": CONNECTION_SECONDS,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": is_pooled,
        "OPTIONS": {
            "connect_timeout": 3,
            "longest_answer": None if _is_command() else PATIENCE,
            # A server whose machine is gone says nothing: without these its connections would hang for 15 minutes.
            "tcp_user_timeout": 10_000,
            "keepalives_idle": 5,
            "keepalives_interval": 5,
            # Planning a start's query takes ten times as long as running it: plan it once for a connection. Behind a
            # pooler that lends a connection for one transaction, what was planned is on another one the next time.
            "server_side_binding": True,
            "prepare_threshold": None if is_pooled else 2,
            **options,
            **({"options": session} if session else {}),
        },
    }


def _is_command() -> bool:
    """Whether somebody, `manage.py` for one, gave statements another limit than requests have."""
    return bool(text("DATABASE_STATEMENT_TIMEOUT"))
