"""What PostgreSQL's client library makes of a URL; what cannot work is found without any server."""

import os
import re
from urllib.parse import parse_qsl

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo, PGconn

#: A folder for sockets that nobody has: libpq judges every option before it looks for a server there.
NOWHERE = "/nonexistent"
#: What libpq itself looks at only once there is a server.
NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)
FILES = ("sslrootcert", "sslcert", "sslkey")
MISTAKEN = (
    "it is not a valid postgresql:// URL. What has a meaning in URLs is encoded in a password: @ as %40, / as %2F."
)


class UnusableUrlError(ValueError):
    """A URL that leads nowhere; the message says why, and shows no part in which a password may be."""


def options_of(url: str) -> dict[str, object]:
    """Its parts and options; UnusableUrlError if it cannot work whatever server there is."""
    try:
        options: dict[str, object] = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except ProgrammingError:
        raise UnusableUrlError(_what_is_wrong_with(url)) from None
    _, _, path = url.partition("://")[2].partition("/")
    if "@" in path.partition("?")[0]:  # of the slash in a password libpq makes the name of a database
        raise UnusableUrlError(MISTAKEN)
    if problem := _problem_of({name: str(value) for name, value in options.items()}):
        raise UnusableUrlError(problem)
    return options


def _problem_of(options: dict[str, str]) -> str:
    if "@" in options.get("host", ""):
        return MISTAKEN
    for name in NUMBERS:
        if name in options and not re.fullmatch("-?[0-9]{1,9}", options[name]):
            return f"{name} is a whole number."
    for name in FILES:
        path = options.get(name, "")
        if path not in {"", "system"} and not os.access(path, os.R_OK):
            return f"{name} names a file that is not there or cannot be read: {path}."
    return _said_by_libpq(options)


def _said_by_libpq(options: dict[str, str]) -> str:
    """What libpq refuses in the options alone; a port that is none may be half of a password."""
    hosts = options.get("host") or options.get("hostaddr") or ""
    tried = {name: value for name, value in options.items() if name != "hostaddr"}
    tried["host"] = ",".join(NOWHERE for _ in hosts.split(","))
    connection = PGconn.connect_start(make_conninfo("", **tried).encode())
    said = connection.error_message.decode(errors="replace").partition("\n")[0]
    connection.finish()
    if NOWHERE in said:
        return ""
    return MISTAKEN if "port" in said else f"{said}."


def _what_is_wrong_with(url: str) -> str:
    """Of a URL that libpq does not take; names an option that it does not know, and shows nothing else."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()} | {"ssl", "requiressl"}
    names = [name for name, _ in parse_qsl(url.partition("?")[2], keep_blank_values=True)]
    unknown = [name for name in names if name not in known and re.fullmatch("[A-Za-z_]{1,40}", name)]
    if unknown:
        pooler = " That a pooler is in between, DATABASE_IS_POOLED=true says." if "pgbouncer" in unknown else ""
        return f"PostgreSQL has no option {unknown[0]}: take it out of the URL.{pooler}"
    return MISTAKEN
