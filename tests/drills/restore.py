"""A backup is restored elsewhere: every secret opens with the key ring, and without it nothing is ready and nothing told.

The commands are those of docs/operate/operations.md. PostgreSQL's dump goes into another server, on which another
control plane starts every worker; the ledger has every start that was acknowledged before the dump. At full size
SQLite's backup too.
"""

import base64
import json
import secrets
import sqlite3
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

import psycopg

from tests.drills.drill import Figure, Scale, say
from tests.drills.load import Answers, Load, send
from tests.drills.service import Service, prepared_server
from tests.drills.tenants import Tenants, create_tenants
from tests.support.databases import PostgresqlServer
from tests.support.processes import ServerDidNotStartError

ORGANIZATIONS = 4
#: The key of the ring that has to be there, as `Service` names it.
SEALED_BY = "ek-drill1"
#: How many starts are tried without the ring.
TRIED = 20


def run(scale: Scale, directory: Path) -> Figure:
    (home := directory / "home").mkdir()
    (elsewhere := directory / "elsewhere").mkdir()
    server = prepared_server(home, {})
    service = Service(directory, server.url, processes=1)
    service.prepare()
    tenants = create_tenants(service, organizations=ORGANIZATIONS, workers=scale.of(25, 125))
    acknowledged = acknowledged_starts(service, tenants, rounds=scale.of(0, 1))
    dump = back_up(server)
    server.stop()
    other = restore(PostgresqlServer(elsewhere, {}), dump)
    recorded = recorded_starts(other.url)
    restored = moved(service, other.url)
    opened = count_that_open(restored, tenants)
    found = tell_without_ring(restored, tenants)
    other.stop()
    total = len(tenants.all_credentials())
    if not scale.is_quick:
        found += tell_of_sqlite(directory)
    for problem in found:
        say(f"NOT AS PROMISED: {problem}")
    starts = f", {recorded:,} of {acknowledged:,} acknowledged starts are in it" if acknowledged else ""
    return Figure(
        f"{opened:,} of {total:,} secrets open from the restored backup{starts}; without the ring {len(found)} of what"
        " is promised broken: not ready, starts 503, commands refuse, no secret in answers or logs",
        is_met=opened == total and recorded == acknowledged and not found,
    )


def acknowledged_starts(service: Service, tenants: Tenants, *, rounds: int) -> int:
    """Has every worker start so many times before the backup."""
    if not rounds:
        return 0
    service.start()
    answers = Load(service.port, tenants.start_calls(rounds=rounds)).start().wait()
    service.stop()
    return len(answers.of(HTTPStatus.OK))


def back_up(server: PostgresqlServer) -> Path:
    dump = server.directory / "control-plane.dump"
    server.run("pg_dump", "--format=custom", f"--file={dump}", f"--dbname={server.url}")
    return dump


def restore(server: PostgresqlServer, dump: Path) -> PostgresqlServer:
    """Into the empty database of another server, all or nothing."""
    copy = server.directory / dump.name
    copy.write_bytes(dump.read_bytes())
    copy.chmod(0o644)
    server.run("pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", f"--dbname={server.url}", copy)
    return server


def recorded_starts(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        (count,) = connection.execute("SELECT count(*) FROM workers_workerstart").fetchone() or (0,)
    return int(count)


def moved(service: Service, database_url: str, **environ: str) -> Service:
    """The same control plane with the same secrets on another database."""
    other = service.beside()
    other.environ |= {"DATABASE_URL": database_url, **environ}
    return other


def count_that_open(service: Service, tenants: Tenants) -> int:
    """How many secrets a start of each worker tells as they were before; the command that verifies has to agree."""
    total = len(tenants.all_credentials()) + len(tenants.api_keys)  # and a data key for each organization
    verified = json.loads(service.manage("rotate_encryption", "--verify", "--format", "json"))
    say(f"with the ring: rotate_encryption --verify says {verified}")
    assert verified == {"opened": total, "failed": 0}, verified
    service.start()
    assert service.status_of("/readyz") == HTTPStatus.SERVICE_UNAVAILABLE
    service.manage("accept_restore", "--keep-keys", "--reason", "the drill starts its workers with them")
    service.process.wait_until(lambda: service.status_of("/api/health") == HTTPStatus.OK)
    answers = Load(service.port, tenants.start_calls(rounds=1), callers=8).start().wait()
    service.stop()
    return sum(
        json.loads(answer.body)[f"{kind}_api_key"] == credential.current()
        for answer in answers.of(HTTPStatus.OK)
        for kind, credential in tenants.credentials[answer.call.mark].items()
    )


def tell_without_ring(service: Service, tenants: Tenants) -> list[str]:
    """What a control plane does that it must not, with another ring and with none."""
    stranger = moved(service, service.environ["DATABASE_URL"], ENCRYPTION_KEYS=other_ring())
    found = tell_of_commands(stranger)
    stranger.start()
    ready, page = get(stranger, "/readyz")
    answers = Answers()
    with closing(HTTPConnection("127.0.0.1", stranger.port, timeout=30)) as caller:
        calls = tenants.start_calls()
        answers.all = [send(caller, next(calls)) for _ in range(TRIED)]
    stranger.stop()
    say(f"with another ring: readiness {ready}, starts {answers.statuses()}")
    if ready != HTTPStatus.SERVICE_UNAVAILABLE or SEALED_BY.encode() not in page:
        found.append(f"/readyz answers {ready}: {page.decode()}")
    found += [f"a start is answered {answer.status}" for answer in answers.other_than(HTTPStatus.SERVICE_UNAVAILABLE)]
    said = b"".join([page, *(answer.body for answer in answers.all), stranger.process.log_text().encode()])
    found += [f"a secret of {each.name} is told" for each in tenants.all_credentials() if tells(said, each.current())]
    return found


def tell_of_commands(stranger: Service) -> list[str]:
    """Commands that must refuse, with another ring and with none, and say which key is missing, but do not."""
    commands = (("check", "--database", "default"), ("rotate_encryption", "--verify"))
    found = [
        f"{command[0]} accepts another ring" for command in commands if SEALED_BY not in refusal(stranger, *command)
    ]
    ringless = moved(stranger, stranger.environ["DATABASE_URL"], ENCRYPTION_KEYS="")
    try:
        ringless.start()
        ringless.stop()
        found.append("the service starts without a ring")
    except ServerDidNotStartError as error:
        say("without any ring it does not start")
        found += [] if "ENCRYPTION_KEYS (or ENCRYPTION_KEYS_FILE) is not set" in str(error) else [str(error)]
    return found


def refusal(service: Service, *command: str) -> str:
    """Why a command failed, "" if it did not."""
    try:
        service.manage(*command)
    except AssertionError as error:
        return str(error)
    return ""


def get(service: Service, path: str) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", service.port, timeout=30)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()


def tells(said: bytes, secret: str) -> bool:
    """Whether a secret is in what was said, plain or in base64."""
    encoded = base64.b64encode(secret.encode()).rstrip(b"=")
    return secret.encode() in said or encoded[:-2] in said


def tell_of_sqlite(directory: Path) -> list[str]:
    """The same in short on SQLite, whose backup is a copy made by itself while the service is up."""
    service = Service(directory, f"sqlite:///{directory}/control-plane.sqlite3", processes=1)
    service.prepare()
    fleet = service.create_fleet(1)
    service.start()
    copy = directory / "copy.sqlite3"
    with (
        closing(sqlite3.connect(directory / "control-plane.sqlite3")) as source,
        closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)  # what the shell's .backup does
    service.stop()
    restored = moved(service, f"sqlite:///{copy}")
    verified = json.loads(restored.manage("rotate_encryption", "--verify", "--format", "json"))
    say(f"SQLite, organization {fleet.organization_id}: rotate_encryption --verify says {verified}")
    found = [] if verified == {"opened": 3, "failed": 0} else [f"of SQLite's backup {verified}"]
    return [*found, *tell_of_commands(moved(restored, f"sqlite:///{copy}", ENCRYPTION_KEYS=other_ring()))]


def other_ring() -> str:
    return f"ek-other:{secrets.token_urlsafe(32)}"
