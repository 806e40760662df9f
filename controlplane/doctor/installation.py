"""Checks of the settings and of the database server: what weakens the promises of this service."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from django.conf import settings
from django.core import checks
from django.db import connection
from django.http.request import split_domain_port, validate_host

from controlplane.doctor.findings import Finding, note, problem
from environments.endpoints.hosts import is_loopback

SETTINGS, DURABILITY, TRANSPORT = "settings", "durability", "transport"
#: What PostgreSQL has to have on, lest a start that was answered is lost when it crashes.
DURABLE = {"fsync": ("on",), "full_page_writes": ("on",), "synchronous_commit": ("on", "remote_write", "remote_apply")}


def examine_settings() -> Iterator[Finding]:
    """Django's own checks, and what they do not know; what only matters beyond this machine is looked at there."""
    # No database is named, since a check of a field may ask one for its version.
    for message in checks.run_checks(databases=[], include_deployment_checks=not settings.IS_LOCAL):
        if message.level >= checks.WARNING and not message.is_silenced():
            yield problem(SETTINGS, f"{message.id}: {message.msg}", message.hint or "See Django's system checks.")
    if settings.DEBUG:
        yield note(SETTINGS, "DEBUG is on: error pages show internals.", "Unset DEBUG but to develop.")
    for network in settings.TRUSTED_PROXIES:
        if network.prefixlen == 0:
            text = f"TRUSTED_PROXIES has {network}: whoever calls may choose the address that is put on record."
            yield problem(SETTINGS, text, "Name the addresses of your proxies alone.")
    host = urlsplit(settings.CONTROL_PLANE_URL).netloc
    if not validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS):
        text = f"CONTROL_PLANE_URL leads to {host}, which is not in ALLOWED_HOSTS: who calls it by that name gets 400."
        yield note(SETTINGS, text, "Add it, unless your proxy passes another Host on.")
    if not settings.IS_LOCAL and not settings.REQUIRE_SECOND_FACTOR:
        text = "The console asks nobody for a second factor."
        yield note(SETTINGS, text, "Set REQUIRE_SECOND_FACTOR=true, unless single sign-on sees to it.")


def examine_database() -> Iterator[Finding]:
    """Whether what is committed stays, and whether the way to the database is encrypted."""
    if connection.vendor != "postgresql":
        if not settings.IS_LOCAL:
            text = "The database is SQLite: one machine, and no start while another one is being written."
            yield note(DURABILITY, text, "Use PostgreSQL where workers depend on it.")
        return
    with connection.cursor() as cursor:
        for name, fine in DURABLE.items():
            cursor.execute("SELECT current_setting(%s)", [name])
            (value,) = cursor.fetchone()
            if value not in fine:
                text = f"PostgreSQL's {name} is {value}: after a crash, starts that were answered may be missing."
                yield problem(DURABILITY, text, f"Set {name} = on in postgresql.conf.")
    for message in connection.validation.check():
        yield problem(SETTINGS, f"{message.id}: {message.msg}", message.hint or "")
    server = connection.connection
    yield from examine_transport(server.info.hostaddr, is_encrypted=server.pgconn.ssl_in_use)


def examine_transport(address: str, *, is_encrypted: bool) -> Iterator[Finding]:
    """Whether others could read along on the way to this address; a socket on this machine has none."""
    if address and not is_loopback(address) and not is_encrypted:
        text = f"The connection to the database at {address} is not encrypted."
        yield problem(TRANSPORT, text, "Add sslmode=verify-full (and sslrootcert) to DATABASE_URL.")
