"""No message is lost: workers end with an error, and `kill -9` hits the whole service before their target is told.

The target is a real receiver that now and then refuses. In the end each worker has been told to it by exactly one message, which
may have been sent more than once; and the verifier of docs/operate/notifications.md believes each request.
"""

import json
import time
from collections import Counter
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from tests.drills.drill import Figure, Scale, say
from tests.drills.mishaps import value_of
from tests.drills.service import Fleet, Service, prepared_server
from tests.support.receivers import SECRET, Received, Receiver, documented_verifier

#: Workers that end together.
TOGETHER = 10
#: Seconds within which a message is usually sent, since a look is due every 20; and at the latest, since the turn of a
#: holder that was killed ends after 45.
USUAL_WAIT, LONGEST_WAIT = 25.0, 90.0
#: Seconds after the last kill until all is told: some of it is sent again a minute later.
PATIENCE = 400
WAITING = "SELECT count(*) FROM workers_notificationdelivery WHERE delivered_at IS NULL"
NEW_TARGET = """
from environments.models import Organization
from tests.support.notifications import create_target
create_target(Organization.objects.get(), url={url!r}, events=["worker_failed"])
"""


def run(scale: Scale, directory: Path) -> Figure:
    (directory / "postgresql").mkdir()
    server = prepared_server(directory / "postgresql", {})
    service = Service(directory, server.url)
    service.prepare()
    rounds = scale.of(2, 12)
    fleet = service.create_fleet(rounds * TOGETHER)
    receiver = Refusing(scale)
    try:
        service.set_up("shell", "-c", NEW_TARGET.format(url=receiver.url))
        service.start()
        under_way = _kill_again_and_again(scale, service, fleet, receiver)
        _wait_for_all(receiver, fleet, server.url)
    finally:
        receiver.stop()
        service.stop()
        server.stop()
    return _figure(fleet, receiver.received, (rounds, under_way))


class Refusing(Receiver):
    """Takes two requests of three, and takes its time."""

    def __init__(self, scale: Scale) -> None:
        self._random = scale.random()
        #: Requests that have come, whether or not they were answered.
        self.begun = 0
        super().__init__()

    def _handle(self, connection: Any) -> None:
        self.begun += 1
        time.sleep(self._random.uniform(0.5, 2))
        self.status = "503 Busy" if self._random.random() < 1 / 3 else "200 OK"
        super()._handle(connection)


def _kill_again_and_again(scale: Scale, service: Service, fleet: Fleet, receiver: Refusing) -> int:
    """In turn at a random moment, and while a message is under way; how many kills were of the second kind."""
    random, under_way = scale.random(), 0
    for number in range(len(fleet.worker_ids) // TOGETHER):
        for worker_id in fleet.worker_ids[number * TOGETHER :][:TOGETHER]:
            _call(service, fleet, worker_id, "start", {})
            _call(service, fleet, worker_id, "disconnect", {"reason": "error", "exit_code": 1})
        began, before = time.monotonic(), receiver.begun
        until = began + (LONGEST_WAIT if number % 2 else random.uniform(0, USUAL_WAIT))
        while time.monotonic() < until and (number % 2 == 0 or receiver.begun == before):
            time.sleep(0.05)
        under_way += number % 2 and receiver.begun > before
        service.process.kill()
        say(f"killed all processes {time.monotonic() - began:.1f} s after {TOGETHER} workers had ended")
        service.start()
    return under_way


def _call(service: Service, fleet: Fleet, worker_id: str, verb: str, body: dict[str, Any]) -> None:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    headers = {"Authorization": f"Bearer {fleet.api_key}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/workers/{worker_id}/{verb}", json.dumps(body), headers)
    status = connection.getresponse().status
    connection.close()
    if status not in {200, 204}:
        message = f"{verb} was answered {status}"
        raise AssertionError(message)


def _wait_for_all(receiver: Receiver, fleet: Fleet, url: str) -> None:
    """Until all workers were told of, and every message is known here to have been taken."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        told = {each.payload["id"]: int(each.payload["count"]) for each in list(receiver.received)}
        if sum(told.values()) >= len(fleet.worker_ids) and value_of(url, WAITING) == "0":
            return
        time.sleep(1)


def _figure(fleet: Fleet, received: list[Received], kills: tuple[int, int]) -> Figure:
    told = {each.payload["id"]: int(each.payload["count"]) for each in received}
    number = len(fleet.worker_ids)
    listed = Counter(subject["id"] for each in _once_each(received) for subject in each.payload["subjects"])
    twice = sum(1 for count in listed.values() if count > 1) + max(0, sum(told.values()) - number)
    missing = max(0, number - sum(told.values()))
    forged = [each for each in received if not _is_signed(each)]
    text = (
        f"{missing} of {number} workers that ended were not told after {kills[0]} kills of the whole service, {kills[1]} of"
        f" them while a message was under way; {twice} by more than one message; {len(told)} messages in {len(received)}"
        f" requests, {len(forged)} of them not signed as documented"
    )
    # What was under way when its sender was killed has come again.
    is_tried = bool(kills[1]) and len(received) > len(told)
    return Figure(text, is_tried and not (missing or twice or forged))


def _once_each(received: list[Received]) -> list[Received]:
    """Without what was sent again."""
    return list({each.payload["id"]: each for each in received}.values())


def _is_signed(each: Received) -> bool:
    """As the documented verifier has it."""
    return documented_verifier()(each.headers, each.body, SECRET, set()) == "genuine"
