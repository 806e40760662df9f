"""Other servers are asked by one thread of a process at a time, and so often by each person: the others are told at once.

The servers are real, accept, and never answer; those who ask are real threads.
"""

import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from environments import limits
from environments.connections import asking
from environments.models import AuditEvent, LiteLLMConnection, Role, TemporalConnection
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import form_of, member, signed_in, url
from tests.support.endpoints import Endpoint, silent
from tests.support.factories import Fleet
from workers.models import Worker, WorkerInstance
from workers.reports.first_boot import ASKING, MOST_ANSWERS, Answer, Answers

pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

LONG = 30
BUSY = "Another check is under way; try again in a moment."


class NeverAnswers(Endpoint):
    """Says when somebody waits for it."""

    def __init__(self) -> None:
        self.is_asked = threading.Event()
        super().__init__(self._handle)

    def _handle(self, sock: Any) -> None:
        if sock.recv(1):
            self.is_asked.set()
            silent(sock)


@pytest.fixture
def server() -> Iterator[NeverAnswers]:
    found = NeverAnswers()
    yield found
    found.stop()


@pytest.fixture
def fleet(transactional_db: None, server: NeverAnswers, settings: Settings) -> Fleet:
    """A fleet whose Temporal and LiteLLM never answer, with a worker that beats."""
    settings.CONNECTION_HOSTS = ()
    return booting(fresh_fleet(), server.host)


def booting(fleet: Fleet, host: str) -> Fleet:
    TemporalConnection.objects.filter(pk=fleet.temporal.pk).update(host=host, is_tls_enabled=False)
    LiteLLMConnection.objects.filter(pk=fleet.litellm.pk).update(api_url=f"http://{host}")
    assert start(fleet).status_code == 200
    WorkerInstance.objects.filter(worker=fleet.worker).update(last_heartbeat_at=timezone.now())
    return fleet


def somebody(fleet: Fleet, name: str = "") -> Client:
    return signed_in(member(fleet.organization, Role.ADMINISTRATOR, name))


def polling(client: Client, worker: Worker) -> tuple[str, str]:
    """The last step of a worker's checklist: its state and what is said of it."""
    response = client.get(url(Worker, "boot_steps", worker.pk))
    assert response.status_code == 200
    step = response.content.decode().partition('data-step="polling"')[2]
    (state,) = re.findall(r'data-state="([^"]+)"', step)
    return state, unescape(step)


def in_a_thread(pool: ThreadPoolExecutor, work: Any, *arguments: Any) -> Future[Any]:
    def run() -> Any:
        try:
            return work(*arguments)
        finally:
            connection.close()

    return pool.submit(run)


def verifications(client: Client, fleet: Fleet) -> list[Any]:
    """Every way to verify a connection."""
    row = fleet.litellm
    typed = form_of(client, url(LiteLLMConnection, "change", row.pk))
    new = {**typed, "organization": fleet.organization.pk, "api_key": "sk-typed"}
    pages = (("verify", [row.pk], {}), ("verify_typed", [row.pk], typed), ("verify_new", [], new))
    return [client.post(url(LiteLLMConnection, name, *ids), data) for name, ids, data in pages]


def test_checklists_hold_one_thread_and_the_others_are_told_at_once(fleet: Fleet, server: NeverAnswers) -> None:
    """Of whatever worker, connection and organization they are, and the page of each asks again by itself."""
    foreign = booting(fresh_fleet(), server.host)
    others = [(somebody(fleet, "ben"), fleet.worker), (somebody(foreign), foreign.worker)]
    with ThreadPoolExecutor(1) as pool:
        first = in_a_thread(pool, polling, somebody(fleet), fleet.worker)
        assert server.is_asked.wait(LONG)
        told = [polling(client, worker) for client, worker in others]
        is_still_waiting = not first.done()
        server.stop()
        state, _ = first.result()
    assert is_still_waiting
    assert [(state, ASKING in text) for state, text in told] == [("Waiting", True)] * 2
    assert state == "Cannot tell"


def test_verifications_hold_one_thread_and_the_others_are_told_at_once(fleet: Fleet, server: NeverAnswers) -> None:
    client, other = somebody(fleet), somebody(fleet, "ben")
    with ThreadPoolExecutor(1) as pool:
        first = in_a_thread(pool, client.post, url(LiteLLMConnection, "verify", fleet.litellm.pk))
        assert server.is_asked.wait(LONG)
        refused = verifications(other, fleet)
        is_still_waiting = not first.done()
        server.stop()
        assert first.result().status_code == 302
    assert is_still_waiting
    for response in refused:
        assert (response.status_code, response["Retry-After"]) == (503, "3")
        assert BUSY in response.content.decode()
    assert AuditEvent.objects.filter(action__endswith=".verified").count() == 1
    assert [response.status_code for response in verifications(other, fleet)] == [302, 200, 200]


def test_a_verification_and_a_checklist_do_not_wait_for_each_other(fleet: Fleet, server: NeverAnswers) -> None:
    TemporalConnection.objects.update(host="127.0.0.1:1")
    with ThreadPoolExecutor(1) as pool:
        verifying = in_a_thread(pool, somebody(fleet).post, url(LiteLLMConnection, "verify", fleet.litellm.pk))
        assert server.is_asked.wait(LONG)
        assert polling(somebody(fleet, "ben"), fleet.worker)[0] == "Cannot tell"
        assert start(fleet).status_code == 200
        server.stop()
        assert verifying.result().status_code == 302


@pytest.mark.parametrize("is_watched_first", [True, False])
def test_a_person_asks_so_often_whatever_for(
    is_watched_first: bool,
    fleet: Fleet,
    server: NeverAnswers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 1_000_000_000)  # the minute does not end within the test
    server.stop()
    client, other = somebody(fleet), somebody(fleet, "ben")
    person = client.session["_auth_user_id"]
    for _ in range(asking.MOST_PER_MINUTE - 1):
        limits.count(f"asks:{person}")
    if is_watched_first:
        assert polling(client, fleet.worker)[0] == "Cannot tell"
    else:
        assert client.post(url(LiteLLMConnection, "verify", fleet.litellm.pk)).status_code == 302
        state, text = polling(client, fleet.worker)
        assert state == "Waiting"
        assert "You asked other servers 30 times within a minute" in text
    for response in verifications(client, fleet):
        assert response.status_code == 429
        assert int(response["Retry-After"]) > 0
        assert "try again in a minute" in response.content.decode()
    assert polling(other, fleet.worker)[0] == "Cannot tell"
    assert [response.status_code for response in verifications(other, fleet)] == [302, 200, 200]


def test_one_answer_is_for_all_who_look_at_a_connection_and_queue_until_it_is_edited(
    fleet: Fleet, server: NeverAnswers
) -> None:
    """A problem is one of the connection: a further queue, whose workers are many, does not make it be asked again."""
    server.stop()
    elsewhere = factories.create_worker(factories.create_queue(fleet.environment, "elsewhere"), "there")
    token = factories.issue_token(fleet.organization)
    assert start(fleet, token=token, worker_id=elsewhere.pk).status_code == 200
    WorkerInstance.objects.update(last_heartbeat_at=timezone.now())
    client = somebody(fleet)
    first = polling(client, fleet.worker)
    assert server.host in first[1]
    assert polling(somebody(fleet, "ben"), elsewhere) == first
    assert limits.count(f"asks:{client.session['_auth_user_id']}") == 2
    TemporalConnection.objects.update(host="127.0.0.1:1")
    assert "127.0.0.1:1." in polling(somebody(fleet, "eve"), fleet.worker)[1]


def test_what_is_remembered_is_bounded() -> None:
    answers = Answers()
    for number in range(3 * MOST_ANSWERS):
        answers.keep((str(number),), Answer(until=float("inf")))
    remembered = [number for number in range(3 * MOST_ANSWERS) if answers.get((str(number),))]
    assert remembered == list(range(2 * MOST_ANSWERS, 3 * MOST_ANSWERS))
    answers.keep(("old",), Answer(until=0))
    assert answers.get(("old",)) is None


def test_a_turn_ends_whatever_happens_in_it() -> None:
    turn = asking.Turn()
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), turn.of("ada"):
            raise error
    with turn.of("ada"), pytest.raises(asking.AnotherAsksError), turn.of("ben"):
        raise AssertionError


def test_who_asks_again_and_again_keeps_nobody_from_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not with two names in turn either; who does not come back is waited for only so long."""
    turn, now, order = asking.Turn(), [1_000.0], []
    monkeypatch.setattr(asking.time, "monotonic", lambda: now[0])

    def ask(person: str, after: float = 0.1) -> None:
        now[0] += after
        with suppress(asking.AnotherAsksError), turn.of(person):
            order.append(person)

    with turn.of("eve"):
        ask("ann")
    for person in ("eve", "ann", "eve"):
        ask(person)
    with turn.of("mallory"):
        ask("ann")
    for person in ("eve", "mallory"):
        ask(person)
    ask("mallory", after=asking.WANTED_FOR)
    assert order == ["ann", "eve", "mallory"]
