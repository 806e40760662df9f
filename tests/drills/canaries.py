"""Canaries: planted secrets are searched for wherever the service leaves traces, in any spelling.

Secrets of every kind go in where they belong: in settings, files, forms, headers. Others are put where they do not belong,
and the service is made to fail around them. Then everything that it and its database wrote is searched for either end of
each secret. A marker that is no secret has to be found by the same search in each of these places, and each secret where it
is rightly told once; else the search proves nothing.
"""

import json
import re
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from environments.encryption import KeyRing, decode
from tests.drills import mishaps
from tests.drills.drill import Figure, Scale, say
from tests.drills.mishaps import Answer, Request, send_all
from tests.drills.service import Fleet, Service, prepared_server
from tests.drills.tour import Tour
from tests.support.canaries import found_in, spellings_of_ends, unescaped
from tests.support.collector import Collector
from tests.support.crawler import Console
from tests.support.databases import THROWAWAY, PostgresqlServer
from tests.support.proxies import Proxy

#: PostgreSQL logs whatever it is told, with all parameters, without what would make two lines differ.
TALKATIVE = {
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_error_verbosity": "verbose",
    "log_connections": "on",
    "log_line_prefix": "",
}
#: A notification target, to which messages are sent in vain.
TARGET = """
from environments.models import Organization
from tests.support.notifications import create_target
create_target(Organization.objects.get(), url="{url}", secret="{secret}")
"""
#: Commands whose output holds the key that they made, this once.
SHOWING_A_KEY = {"issue_api_key", "rotate_api_key"}
#: What has to have been seen, so that the search had something to search.
STATUSES = {400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 503}
#: Tells the data keys, which exist in the clear only in a process of the service.
DATA_KEYS = """
from environments.models import DataKey
from environments.sealing.data_keys import fingerprint_key_of, unwrap
for row in DataKey.objects.all():
    key = unwrap(row)
    print(key.material.hex(), fingerprint_key_of(row, key).material.hex())
"""


@dataclass
class Canaries:
    """The secrets, and by place what was written there."""

    marker: str
    secrets: dict[str, set[bytes]] = field(default_factory=dict)
    places: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    #: Of a place that does not tell the marker: what it tells instead.
    markers: dict[str, str] = field(default_factory=dict)
    statuses: set[int] = field(default_factory=set)
    #: Where a secret is rightly told once: what was told, and the secret that has to be found there.
    told: list[tuple[bytes, str]] = field(default_factory=list)

    def plant(self, name: str, secret: str | bytes) -> None:
        self.secrets[name] = spellings_of_ends(secret)

    def plant_key(self, name: str, api_key: str) -> None:
        """An API key's secret parts: its random id and its signature; the rest says what it is."""
        _, claims, signature = api_key.split(".")
        self.secrets[name] = spellings_of_ends(signature) | spellings_of_ends(json.loads(decode(claims))["jti"])

    def keep(self, place: str, *contents: str | bytes) -> None:
        self.places[place] += [text.encode(errors="replace") if isinstance(text, str) else text for text in contents]

    def keep_answers(self, place: str, answers: list[Answer]) -> None:
        self.statuses |= {answer.status for answer in answers}
        self.keep(place, *(answer.content for answer in answers))

    def search(self) -> tuple[list[str], list[str], int]:
        """The hits, the places without the marker, and how many bytes were searched; a line is searched once."""
        hits, unmarked, size = [], [], 0
        for place, contents in self.places.items():
            size += sum(map(len, contents))
            text = unescaped(b"\n".join({line for content in contents for line in content.split(b"\n")}))
            found = sorted(found_in(text, self.secrets))
            hits += [f"{name} in {place}: {self._line_with(name, text)}" for name in found]
            if not found_in(text, {"marker": spellings_of_ends(self.markers.get(place, self.marker))}):
                unmarked.append(place)
        unmarked += [name for content, name in self.told if name not in found_in(content, self.secrets)]
        return hits, unmarked, size

    def _line_with(self, name: str, text: bytes) -> str:
        """Around the first hit, the secret blotted out."""
        way = next(way for way in self.secrets[name] if way in text)
        before, _, after = text.partition(way)
        return f"{before[-200:].rpartition(b'\n')[2].decode(errors='replace')}***{after[:100].partition(b'\n')[0].decode(errors='replace')}"


class ProcessWatch(threading.Thread):
    """Reads the arguments of all processes of the machine again and again."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: set[bytes] = set()
        self._is_over = threading.Event()

    def run(self) -> None:
        while not self._is_over.wait(0.03):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    self.seen.add(path.read_bytes())

    def stop(self) -> set[bytes]:
        self._is_over.set()
        self.join()
        return self.seen


def run(scale: Scale, directory: Path) -> Figure:
    canaries = Canaries(f"marker-{secrets.token_hex(12)}")
    watch = ProcessWatch()
    watch.start()
    with Collector.serving() as collector, ThreadPoolExecutor() as pool:
        beside = pool.submit(_with_debug, canaries, directory / "debug")
        pages = _in_production(scale, canaries, directory, collector)
        beside.result()
    canaries.keep("process arguments", *watch.stop())
    return _figure(canaries, pages)


def _figure(canaries: Canaries, pages: int) -> Figure:
    began = time.monotonic()
    hits, unmarked, size = canaries.search()
    say(f"searched {size / 1e6:.0f} MB in {time.monotonic() - began:.1f} s")
    for line in [*hits, *(f"not found, though it is there: {place}" for place in unmarked)]:
        say(line)
    if missing := STATUSES - canaries.statuses:
        say(f"never answered: {sorted(missing)}")
    spellings = sum(map(len, canaries.secrets.values()))
    text = (
        f"{len(hits)} hits of {len(canaries.secrets)} secrets in {spellings:,} spellings, in {len(canaries.places)} places"
        f" ({size / 1e6:.0f} MB, {pages:,} pages, answers with {len(canaries.statuses & STATUSES)} statuses of refusal and"
        f" failure: {', '.join(sorted(canaries.places))}); the marker and what is told once were found in all but {len(unmarked)}"
    )
    return Figure(text, not hits and not unmarked and not missing)


# --- In production ------------------------------------------------------------------------------------------------------


def _in_production(scale: Scale, canaries: Canaries, directory: Path, collector: Collector) -> int:
    (directory / "postgresql").mkdir()
    server = prepared_server(directory / "postgresql", THROWAWAY | TALKATIVE)
    sign_on = {
        "OIDC_SERVER_URL": "https://127.0.0.1:9",
        "OIDC_CLIENT_ID": "console",
        "OIDC_CLIENT_SECRET": secrets.token_urlsafe(32),
    }
    monitoring = {
        **collector.environ,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_EXPORTER_OTLP_HEADERS": f"token={secrets.token_hex(32)}",
        "METRICS_TOKEN": secrets.token_urlsafe(32),
    }
    service = _service(canaries, directory / "service", server.url, "", **sign_on, **monitoring)
    fleet = _fleet(canaries, service, "")
    canaries.plant("database password", urlsplit(server.url).password or "")
    canaries.plant("client secret of the single sign-on", sign_on["OIDC_CLIENT_SECRET"])
    canaries.plant("METRICS_TOKEN", monitoring["METRICS_TOKEN"])
    canaries.plant("token of the traces' collector", monitoring["OTEL_EXPORTER_OTLP_HEADERS"].partition("=")[2])
    for number, line in enumerate(service.manage("shell", "--no-imports", input=DATA_KEYS).splitlines()[-1:]):
        for name, material in zip(("data key", "fingerprint key"), line.split(), strict=True):
            canaries.plant(f"{name} {number}", bytes.fromhex(material))
    service.printed.pop()
    service.start()
    try:
        pages = _use(scale, canaries, service, server, fleet)
        with _proxy(canaries, directory / "proxy", service) as proxy:
            send_all(proxy.connection, [*mishaps.misplacing(fleet), *mishaps.good_calls(fleet)])
            asking = {"Authorization": f"Bearer {monitoring['METRICS_TOKEN']}"}
            (figures,) = send_all(service.port, [Request("GET", "/metrics", asking)])
            canaries.keep("/metrics", figures.content)
            time.sleep(1)  # until the last spans are sent
            service.stop()
            send_all(proxy.connection, mishaps.good_calls(fleet))
    finally:
        service.stop()
    url = urlsplit(server.url)
    where = urlsplit(server.url)._replace(netloc=f"{url.username}@{url.hostname}:{url.port}").geturl()
    dumped = server.run("pg_dump", "--no-password", where, env={"PGPASSWORD": url.password})
    canaries.keep("database dump", dumped.stdout)
    canaries.keep("application log", service.process.log_text())
    canaries.markers["application log"] = fleet.worker_ids[0]
    server.stop()
    canaries.keep("database log", server.process.log_text())
    canaries.keep("spans", *collector.bodies)
    canaries.markers["spans"] = fleet.worker_ids[0]
    _keep_printed(canaries, service)
    return pages


@contextmanager
def _proxy(canaries: Canaries, directory: Path, service: Service) -> Iterator[Proxy]:
    """The reverse proxy as it is shipped; what it wrote is kept."""
    proxy = Proxy(directory, service.port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
    canaries.keep("proxy log", *(path.read_bytes() for path in directory.glob("*.log")), proxy.process.log_text())


def _service(canaries: Canaries, directory: Path, database_url: str, which: str, **environ: str) -> Service:
    """A service with tables and a superuser, whose secret settings are planted."""
    directory.mkdir(parents=True)
    password = secrets.token_urlsafe(18)
    service = Service(directory, database_url, processes=1, **environ)
    canaries.plant(f"SECRET_KEY{which}", service.environ["SECRET_KEY"])
    for name in ("ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS"):
        for key in KeyRing.parse(service.environ[name]).values():
            canaries.plant(f"{name} {key.id}{which}", key.material)
            canaries.plant(f"{name} {key.id}{which}, as it is set", service.environ[name].partition(":")[2])
    service.prepare()
    account = ("createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com")
    service.manage(*account, environ={"DJANGO_SUPERUSER_PASSWORD": password})
    canaries.plant(f"superuser's password{which}", password)
    service.environ["ROOT_PASSWORD"] = password  # for the drill; the service does not know this name
    return service


def _fleet(canaries: Canaries, service: Service, which: str) -> Fleet:
    fleet = service.create_fleet(3, canaries.marker)
    service.manage("export", "--organization", canaries.marker)  # as a process of its own
    canaries.plant_key(f"API key{which}", fleet.api_key)
    canaries.plant(f"Temporal API key{which}", fleet.temporal_api_key)
    canaries.plant(f"LiteLLM API key{which}", fleet.litellm_api_key)
    url, secret = secrets.token_urlsafe(24), secrets.token_urlsafe(32)
    service.manage("shell", "--no-imports", input=TARGET.format(url=f"http://127.0.0.1:9/{url}", secret=secret))
    canaries.plant(f"URL of a notification target{which}", url)
    canaries.plant(f"secret of a notification target{which}", secret)
    return fleet


def _use(scale: Scale, canaries: Canaries, service: Service, server: PostgresqlServer, fleet: Fleet) -> int:
    """Everything that a fleet and people do, and then everything that goes wrong."""
    start, *others = send_all(service.port, mishaps.good_calls(fleet))
    canaries.told += [(start.content, "Temporal API key"), (start.content, "LiteLLM API key")]
    canaries.keep_answers("API answers", [*others, *_read_all(service, fleet)])
    root = Console(service.url, "root", service.environ["ROOT_PASSWORD"])
    tour = Tour(canaries, root, server.url, fleet)
    people = tour.through_all()
    with ThreadPoolExecutor() as pool:
        commands = pool.submit(_commands, scale, canaries, service, server.url)
        crawls = [pool.submit(_crawl, scale, person, tour) for person in (root, *people)]
        commands.result()
        pages = sum(crawl.result() for crawl in crawls)
    canaries.keep_answers("API answers", send_all(service.port, mishaps.misplacing(fleet)))
    _fail(canaries, service, server, tour)
    for person in (root, *people):
        canaries.keep("console", *(content for _, content in person.shown))
    return pages


def _crawl(scale: Scale, console: Console, tour: Tour) -> int:
    """Every page that links lead to; for every change those of the first row, and for roles the pages of secrets only."""
    if scale.is_quick and console is not tour.console:
        return len([console.send(path) for path in tour.pages])
    return len(list(console.crawl("/admin/", *tour.pages, rows=scale.of(1, 4), is_wide=not scale.is_quick)))


def _read_all(service: Service, fleet: Fleet) -> list[Answer]:
    """Every GET of the served document."""
    document = json.loads(
        send_all(service.port, [Request("GET", "/api/openapi.json", {})])[0].content.partition(b"\n\n")[2]
    )
    lists = send_all(service.port, mishaps.readings(fleet, document["paths"]))
    ids = re.findall(rb'"(?:id|environment_id)":"([0-9a-f-]{36})"', b"".join(answer.content for answer in lists))
    names = ("queue_id", "environment_id")
    requests = [
        request
        for name in names
        for identifier in sorted(set(ids))
        for request in mishaps.readings_of(fleet, document["paths"], name, identifier.decode())
    ]
    return lists + send_all(service.port, requests)


def _commands(scale: Scale, canaries: Canaries, service: Service, url: str) -> None:
    """What operators run; what they print is kept, but for the key that a command is there to show."""
    key_id = mishaps.value_of(url, "SELECT id FROM workers_apikey ORDER BY created_at LIMIT 1")
    rotated = json.loads(service.manage("rotate_api_key", key_id, "--format", "json"))["api_key"]
    canaries.plant_key("rotated API key", rotated)
    service.manage("revoke_api_key", "--stdin", "--reason", "drill", input=rotated)
    canaries.keep("export", service.manage("export"))
    canaries.keep("audit", service.manage("audit", "--format", "json"))
    canaries.keep("dumpdata", service.manage("dumpdata"))
    more = (
        "check --deploy",
        "rotate_encryption",
        "prune_workers --dry-run",
        "audit",
        "audit --help",
        "seed_fleet --help",
    )
    for command in () if scale.is_quick else more:
        service.manage(*command.split())


def _fail(canaries: Canaries, service: Service, server: PostgresqlServer, tour: Tour) -> None:
    """Breaks the database in several ways, and last takes it away, each time while secrets are sent."""
    calls = [*mishaps.good_calls(tour.fleet)]
    with mishaps.broken(server.url, *mishaps.INCOMPLETE):
        canaries.keep_answers("API answers", send_all(service.port, calls))
    for breaking, mending in mishaps.BREAKAGES:
        with mishaps.broken(server.url, breaking, mending):
            canaries.keep_answers("API answers", [a for a in send_all(service.port, calls) if a.status != 200])
            mishaps.at_the_console(tour.console, tour.connection, tour.fleet)
    mishaps.execute(server.url, mishaps.DAMAGE)
    canaries.keep_answers("API answers", send_all(service.port, calls[:1]))
    server.stop()
    canaries.keep_answers("API answers", send_all(service.port, [*calls, *mishaps.misplacing(tour.fleet)]))
    mishaps.at_the_console(tour.console, tour.connection, tour.fleet)
    canaries.keep("database log", server.process.log_text())
    server.start()


def _keep_printed(canaries: Canaries, service: Service) -> None:
    for arguments, stdout, stderr in service.printed:
        canaries.keep("commands", stderr)
        if arguments[0] in SHOWING_A_KEY:
            canaries.told.append((stdout.encode(), "rotated API key" if "rotate" in arguments[0] else "API key"))
        else:
            canaries.keep("commands", stdout)


# --- With DEBUG ---------------------------------------------------------------------------------------------------------


def _with_debug(canaries: Canaries, directory: Path) -> None:
    """A developer's service, on SQLite, whose errors are shown with what led to them."""
    url = f"sqlite:///{directory}/database.sqlite3"
    service = _service(canaries, directory, url, " (DEBUG)", DEBUG="true")
    fleet = _fleet(canaries, service, " (DEBUG)")
    service.start()
    try:
        send_all(service.port, mishaps.good_calls(fleet))
        root = Console(service.url, "root", service.environ["ROOT_PASSWORD"])
        mishaps.execute(url, mishaps.BREAKAGE_OF_SQLITE)
        connection = mishaps.value_of(url, "SELECT id FROM environments_temporalconnection")
        path = f"/admin/environments/temporalconnection/{connection}/change/"
        answers = send_all(service.port, mishaps.misplacing(fleet))
        mishaps.at_the_console(root, path, fleet)
        mishaps.at_the_second_factor(root, ("root", service.environ["ROOT_PASSWORD"]), fleet)
        canaries.keep_answers("answers with DEBUG", answers)
        canaries.keep("pages with DEBUG", *(content for _, content in root.shown))
        if not {"/admin/account/", "/admin/account/second-factor/"} <= {
            path for path, content in root.shown if b"Exception Location" in content
        }:
            message = "DEBUG showed no errors with what led to them."
            raise AssertionError(message)
    finally:
        service.stop()
    canaries.keep("log with DEBUG", service.process.log_text())
    canaries.markers["log with DEBUG"] = fleet.worker_ids[0]
