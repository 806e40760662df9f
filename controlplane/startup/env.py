"""Reads settings from environment variables, each secret also from the file that NAME_FILE names.

A `.env` file beside `manage.py` (or at CONTROL_PLANE_ENV_FILE) fills in what the environment does not set; `quickstart`
writes one.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import NoReturn
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import env_file as env_file_text
from controlplane.startup import private_files
from environments.encryption import KeyRing, KeyRingError
from environments.endpoints.hosts import AllowedHost, HostError, UnusableError, is_loopback, read_host
from environments.endpoints.rules import Endpoint, read_otlp_endpoint, read_url

ROOT = Path(__file__).resolve().parents[2]
#: But for what ends a line; a surrogate stands for a byte that is not UTF-8.
UNPRINTABLE = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060\ud800-\udfff\ufeff]")
#: What a shell, or Docker Compose, would have replaced by a value.
UNFILLED = re.compile(r"\$\{[A-Za-z_][^{}]*\}|\A\$(?:[A-Za-z_]\w*|\(.*\))\Z", re.DOTALL)
#: Seconds that a request waits for its database, so that every answer comes within five; a command waits longer.
PATIENCE = 3
PATIENCE_OF_COMMANDS = 20
#: Seconds that a connection to a database is kept. Opening SQLite's file for each request would double what that costs.
CONNECTION_SECONDS = 300


def env_file() -> Path:
    """Where the `.env` file is, or would be."""
    return Path(os.environ.get("CONTROL_PLANE_ENV_FILE") or ROOT / ".env")


#: The lines of the file that was loaded, by the name that they set; for messages.
_lines: dict[str, env_file_text.Line] = {}


def load_env_file() -> None:
    """Adds the file's NAME=value lines to the environment, which wins; refuses a file that others can read."""
    path = env_file()
    _lines.clear()
    if not os.path.lexists(path):
        return
    try:
        text = env_file_text.read(path)
        is_open = private_files.is_open_to_others(path)
    except env_file_text.UnreadableError as error:
        msg = f"{path} cannot be read: {error}."
        raise ImproperlyConfigured(msg) from None
    if is_open:
        msg = f"{path} holds secrets and others may read it: run chmod 600 {path}"
        raise ImproperlyConfigured(msg)
    _lines.update(env_file_text.parse(text, path))
    for name, line in _lines.items():
        if f"{name}_FILE" not in os.environ:
            os.environ.setdefault(name, line.value)


def refuse(name: str, reason: str) -> NoReturn:
    """Stops the boot with the setting's name, the file and line that it is from, and what is wrong with it."""
    found, path = _lines.get(name), os.environ.get(f"{name}_FILE")
    if path:
        where = f" (from {path})"
    elif found and os.environ.get(name) == found.value:
        where = f" ({env_file()}, line {found.number})"
    else:
        where = ""
    msg = f"{name}{where}: {reason}"
    raise ImproperlyConfigured(msg) from None


def mention(name: str) -> str:
    """Where the file names a setting that has no value, in a comment or another spelling too; "" if nowhere."""
    number = env_file_text.line_about(env_file(), name)
    return f"{env_file()}, line {number}" if number else ""


def text(name: str, default: str = "") -> str:
    """The variable, or what its NAME_FILE holds, or the default; without quotes and white space around it."""
    path = env_file_text.unquoted(os.environ.get(f"{name}_FILE", ""))
    if path and os.environ.get(name):
        msg = f"Both {name} and {name}_FILE are set: keep one."
        raise ImproperlyConfigured(msg)
    value = os.environ.get(name, default)
    if path:
        try:
            value = env_file_text.read(Path(path))
        except env_file_text.UnreadableError as error:
            msg = f"{name}_FILE: {path} cannot be read ({error})."
            raise ImproperlyConfigured(msg) from None
    value = env_file_text.unquoted(value)
    if UNPRINTABLE.search(value):
        refuse(name, "it holds a character that is not printable, or is not UTF-8.")
    if UNFILLED.search(value):
        refuse(name, "it holds $, a name and braces, or a command, as a shell fills in: write the value itself.")
    return value


def plain_text(name: str, default: str = "") -> str:
    """A text of one line, as all settings but key rings are."""
    value = text(name, default)
    if len(value.splitlines()) > 1:
        refuse(name, "it has more than one line.")
    return value


def required(name: str, kind: str) -> str:
    """A secret without which there is no boot; the message says how to make one, unless there seems to be one."""
    value = text(name)
    if value:
        return value
    if where := mention(name):
        reason = f"it has no value, but {where} names it. Is that line empty or a comment, or set to nothing elsewhere?"
        msg = f"{name}: {reason} Mend it: a new key opens nothing that another one has sealed."
        raise ImproperlyConfigured(msg)
    path = env_file()
    missing = "" if path.exists() else f", and there is no {path}"
    make = f"python manage.py generate_key {kind}"
    if os.environ.get(f"{name}_FILE"):
        refuse(name, f"the file is empty. Put back what was in it, or, for a new installation, make one with: {make}")
    msg = f"{name} (or {name}_FILE) is not set{missing}. Make one with: {make}"
    raise ImproperlyConfigured(msg)


def key_ring(name: str, kind: str, prefix: str = "") -> KeyRing:
    """A ring of 32-byte keys, the first active. Who has one that is damaged is not told to make another one."""
    try:
        ring = KeyRing.parse(required(name, kind))
    except KeyRingError as error:
        is_own = name in _lines or f"{name}_FILE" in os.environ
        form = "Compare it with your copy of the keys." if is_own else f"It is what generate_key {kind} printed."
        refuse(name, f"{error}. {form}")
    if strangers := [key_id for key_id in ring if not key_id.startswith(prefix)]:
        refuse(name, f"key id {strangers[0]!r} does not begin with {prefix!r}.")
    return ring


def boolean(name: str) -> bool:
    """True for true, 1, yes, on; False for false, 0, no, off and when not set."""
    value = plain_text(name, "false").lower()
    if value in {"true", "1", "yes", "on"}:
        return True
    if value in {"false", "0", "no", "off", ""}:
        return False
    refuse(name, f"it is true or false, not {value!r}.")


def positive_integer(name: str, default: int, most: int | None = None) -> int:
    """A whole number from 1."""
    value = plain_text(name, str(default))
    if not re.fullmatch("[0-9]{1,18}", value) or int(value) < 1 or (most and int(value) > most):
        refuse(name, f"it is a whole number from 1{f' to {most}' if most else ''}, not {value!r}.")
    return int(value)


def port() -> int:
    """The TCP port to serve on."""
    return positive_integer("PORT", 8000, most=65_535)


def words(name: str, default: str = "") -> list[str]:
    """A list parted by commas; one that is set and lists nothing is a mistake."""
    value = plain_text(name, default)
    found = [word.strip() for word in value.split(",") if word.strip()]
    if value and not found:
        refuse(name, "it is set, but names nothing.")
    return found


def host_names(name: str, default: str) -> list[str]:
    """A list of the hosts that browsers and workers call this service by, as Django compares them."""
    found = []
    for word in words(name, default):
        host = f"[{word}]" if word.count(":") > 1 and "[" not in word else word.lower().removesuffix(".")
        if host.startswith(("*", ".")):
            refuse(name, "it names each host; '*' and '.domain' are refused.")
        if not is_own_host(host):
            reason = (
                f"{word!r} is none. It has host names only, parted by commas: no https://, no port, no path, no quotes."
            )
            refuse(name, f"{reason} Such as: controlplane.example.com")
        found.append(host)
    return found


def is_own_host(host: str) -> bool:
    """A name or address that requests to us can carry: Django refuses a Host with an underscore."""
    try:
        read_host(host[1:-1] if host.startswith("[") and host.endswith("]") else host)
    except HostError:
        return False
    return "_" not in host


def networks(name: str, default: str) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """A list of addresses or networks parted by commas."""
    try:
        found = [ipaddress.ip_network(word) for word in words(name, default)]
    except ValueError as error:
        refuse(name, f"{error}.")
    if mapped := [network for network in found if network.version == 6 and network.network_address.ipv4_mapped]:  # noqa: PLR2004
        refuse(name, f"{mapped[0]} is IPv4: write it as such.")
    if everybody := [network for network in found if network.prefixlen == 0]:
        refuse(name, f"{everybody[0]} is everybody, so that no client's address is known: name your proxies' networks.")
    return found


def connection_hosts(name: str) -> tuple[AllowedHost, ...]:
    """What connections may lead to: hosts, *.domains, addresses or networks, each with or without a port."""
    entries = []
    for entry in words(name):
        try:
            entries.append(AllowedHost.parse(entry))
        except HostError as error:
            shown = "an entry" if "@" in entry else repr(entry)
            refuse(name, f"{shown} is no host, host:port, *.domain or network. {error}")
    return tuple(entries)


@lru_cache(1024)
def read_as_url(name: str, value: str, *, such_as: str, read: Callable[[str], Endpoint] = read_url) -> Endpoint:
    """The parts of a setting that is the URL of a service; shows it unless it may have a password in it."""
    try:
        return read(value)
    except UnusableError as error:
        shown = "" if "@" in value else f", not {value!r}"
        refuse(name, f"it is an http(s) URL such as {such_as}{shown}. {error}")


def control_plane_url(default: str) -> str:
    """The URL that workers are told, without a slash or dot at its end; https unless it is this machine's."""
    told = plain_text("CONTROL_PLANE_URL", default)
    read_as_url("CONTROL_PLANE_URL", told, such_as="https://controlplane.example.com")
    parts = urlsplit(told)
    if not is_own_host((parts.hostname or "").removesuffix(".")):
        refuse("CONTROL_PLANE_URL", "its host has an underscore, which no request to this service may have.")
    if parts.path.strip("/"):
        refuse("CONTROL_PLANE_URL", f"this service has a host of its own: leave out {parts.path}.")
    host = (parts.hostname or "").removesuffix(".")
    if parts.scheme == "http" and not is_loopback(host):
        refuse("CONTROL_PLANE_URL", "it hands out secrets, so beyond this machine it begins with https://.")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{f':{parts.port}' if parts.port else ''}"


def metrics_token(secret_key: str) -> str:
    """What opens /metrics, "" for nobody; as it can stand in a header."""
    token = plain_text("METRICS_TOKEN")
    if token and (not re.fullmatch("[!#-&(-~]{32,}", token) or token in secret_key):
        reason = "it is 32 ASCII characters or more of its own, without blanks and quotes."
        refuse("METRICS_TOKEN", f"{reason} Make one with: python manage.py generate_key secret")
    return token


def trace_endpoint() -> bool:
    """Whether traces are sent; OpenTelemetry reads the variable itself, and knows neither quotes nor NAME_FILE."""
    name = "OTEL_EXPORTER_OTLP_ENDPOINT"
    endpoint = plain_text(name)
    if endpoint:
        read_as_url(name, endpoint, such_as="http://127.0.0.1:4318", read=read_otlp_endpoint)
        os.environ[name] = endpoint
        os.environ.pop(f"{name}_FILE", None)
    return bool(endpoint)


def openid_connect() -> tuple[str, dict[str, object]]:
    """The provider's name, "" without one, and allauth's SOCIALACCOUNT_PROVIDERS; all of it is set or nothing."""
    names = ("OIDC_SERVER_URL", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")
    values = [plain_text(name) for name in names]
    if not any([*values, plain_text("OIDC_NAME")]):
        return "", {}
    if not all(values):
        missing = ", ".join(name for name, value in zip(names, values, strict=True) if not value)
        msg = f"Single sign-on is set up in part only. Not set: {missing}. Set all of {', '.join(names)}, or none."
        raise ImproperlyConfigured(msg)
    url, client_id, secret = values
    endpoint = read_as_url("OIDC_SERVER_URL", url, such_as="https://login.example.com/realm")
    if not (endpoint.is_tls or is_loopback(str(endpoint.host))):
        refuse("OIDC_SERVER_URL", "it says who may sign in, so beyond this machine it begins with https://.")
    for name, value in (("OIDC_CLIENT_ID", client_id), ("OIDC_CLIENT_SECRET", secret)):
        if re.search(r"\s|^[\"']|[\"']$", value):
            refuse(name, "it has a blank or a quote that does not belong to it.")
    name = plain_text("OIDC_NAME", "single sign-on")[:40] or "single sign-on"
    app = {"provider_id": "oidc", "name": name, "client_id": client_id, "secret": secret}
    settings = {"server_url": url.rstrip("/"), "oauth_pkce_enabled": True}
    return name, {"openid_connect": {"APPS": [{**app, "settings": settings}]}}


def database(url: str) -> dict[str, object]:
    """Django's DATABASES entry for sqlite:///path or postgresql://user:password@host:port/name?option=value."""
    scheme = url.partition("://")[0]
    if scheme == "sqlite":
        return _sqlite(url)
    if scheme in {"postgresql", "postgres"}:
        return _postgresql(url)
    refuse("DATABASE_URL", "it begins with sqlite:/// or postgresql://.")


def _sqlite(url: str) -> dict[str, object]:
    """sqlite:///relative (to the project) or sqlite:////absolute."""
    slash, path = url[9:10], unquote(url[10:])
    if slash != "/" or not path or path.endswith("/"):
        refuse("DATABASE_URL", "sqlite:/// lacks the path of a file.")
    if path.startswith(":memory:"):
        refuse("DATABASE_URL", "a database in memory is each process's own: name a file.")
    if re.search("[?#]", url):
        refuse("DATABASE_URL", "after the path of a file, sqlite:/// takes no options (write ? as %3F, # as %23).")
    name = ROOT / path
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
    from controlplane.startup import libpq  # noqa: PLC0415  # not needed with SQLite

    try:
        options = libpq.options_of(url)
    except libpq.UnusableUrlError as error:
        refuse("DATABASE_URL", str(error))
    name = options.pop("dbname", None)
    if not name:
        refuse("DATABASE_URL", "the postgresql:// URL lacks the name of a database.")
    is_pooled = boolean("DATABASE_IS_POOLED")
    # Such a pooler hands these on to nobody: behind one they are the role's. With PostgreSQL's 4 MB the dashboard's
    # statement sorts 100,000 workers on disk; where a page that is found by a key is as dear as on a turning disk, a
    # heartbeat reads all queues.
    statement_timeout = plain_text("DATABASE_STATEMENT_TIMEOUT", "5s")
    if not re.fullmatch("[0-9]{1,9}(us|ms|s|min|h|d)?", statement_timeout):
        refuse("DATABASE_STATEMENT_TIMEOUT", f"it is a time such as 5s or 500ms, not {statement_timeout!r}.")
    limits = f"-c lock_timeout=2s -c statement_timeout={statement_timeout} -c work_mem=16MB -c random_page_cost=1.1"
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
    return bool(plain_text("DATABASE_STATEMENT_TIMEOUT"))
