"""Keeps a thread free for workers, whatever people, readers and other tenants ask for.

What waits for the database or another server holds one of the process's few threads. So people's pages and what
readers ask of the API hold at most half of some of them each, and never all of these; what comes beyond that is
refused at once, which frees its thread. A worker's calls are not counted among these. The last thread, as the last
place of people and of readers, is for those who hold up nobody: one person, or one tenant, never has them all for long.
A body that comes slowly holds a thread, too, so those of one tenant hold at most half of them.
"""

import binascii
import json
import re
import threading
import time
import weakref
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase

from controlplane.engines.turns import turns
from controlplane.serving.garbage import garbage
from controlplane.serving.server import SHARED_THREADS, THREADS

#: Seconds after which something holds a request up: most take milliseconds, and no lock is waited for longer than two
#: seconds.
HELD_UP = 1.0
#: Seconds for which an organization gets no last thread after a call of it was held up and ended in an error of ours.
LATELY = 2.0
#: Seconds after which a person's or reader's request goes ahead without its turn, since the one before it waits.
PATIENCE = 0.2
#: Seconds that a change or a body waits for a thread before it looks again.
PAUSE = 0.01
#: What looks at a row or two, as a worker's calls do, so that a program which asks ten of them at once is not refused.
#: All else that is read is a list, or is counted, and takes the longer the more there is.
SHORT = re.compile(
    r"/api/v1/((environments|worker-queues)/[^/]+(/config|/worker-command|/update-lock-status)?"
    r"|(registered-workers|api-keys|[a-z]+-connections|telemetry-settings)/[^/]+|organization)/?"
)
#: Of a token's payload: none of ours is as long.
LONGEST_PAYLOAD = 4_000
#: Scripts that pages are broken without; they ask neither the database nor anybody else.
UNCOUNTED = ("/api/health", "/api/ready", "/admin/jsi18n/")
#: What managers change, which waits for locks and looks at much: no worker calls any of these.
MANAGED = re.compile(
    r"/api/v1/((environments|worker-queues)(/[^/]+(/worker-queues)?)?"
    r"|(registered-workers|api-keys|[a-z]+-connections|telemetry-settings)(/[^/]+){0,2}|organization)/?"
)


class Kind(Enum):
    """Whose requests hold threads."""

    PEOPLE = "people"
    READERS = "readers"
    WORKERS = "workers"


def kind_of(request: HttpRequest) -> Kind | None:
    """Whose request it is; None for what holds no thread for long."""
    path = request.path_info
    if path.startswith("/api/v1/"):
        is_read = request.method in {"GET", "HEAD"}
        is_long = not SHORT.fullmatch(path) if is_read else MANAGED.fullmatch(path)
        return Kind.READERS if is_long else Kind.WORKERS
    return Kind.PEOPLE if path.startswith(("/admin/", "/api/")) and not path.startswith(UNCOUNTED) else None


class Place:
    """A thread that a request holds, until it leaves; leaving twice is leaving once."""

    def __init__(self, bulkhead: "Bulkhead", kind: Kind, holder: str) -> None:
        self._bulkhead, self.kind, self.holder = bulkhead, kind, holder
        self.began = time.monotonic()

    def leave(self) -> None:
        with self._bulkhead.lock:
            if self not in self._bulkhead.places:
                return
            self._bulkhead.places.discard(self)
        garbage.collect()

    def leave_after(self, response: HttpResponseBase) -> None:
        """Leaves when the answer is sent, was broken off, or is forgotten unsent."""
        if not response.streaming:
            self.leave()
            return
        weakref.finalize(response, self.leave)
        response._resource_closers.append(self.leave)  # type: ignore[attr-defined]  # Django's own list
        response.streaming_content = self._sending(response.streaming_content)  # type: ignore[attr-defined]

    def _sending(self, content: Any) -> Iterator[Any]:
        try:
            yield from content
        finally:
            self.leave()


@dataclass(eq=False)
class Call:
    """A worker's call: whether it has a thread, when it began, the status of its answer."""

    has_thread: bool
    began: float
    status: int = 0


class TooManyBodiesError(Exception):
    """The organization sends as many bodies at once as may hold threads."""


class Bulkhead:
    """Who holds the threads of this process; `shared` are those that people and readers share, all unless told."""

    def __init__(self, threads: int = THREADS, shared: int | None = None) -> None:
        shared = threads if shared is None else shared
        self._half, self._most_shared = max(1, shared // 2), max(1, shared - 1)
        self._all_but_one = max(1, threads - 1)
        self._most_bodies = max(1, threads // 2)
        self._all_but_two, self._waiting = max(1, threads - 2), 0
        self.lock = threading.RLock()  # a response may be forgotten, and leave, while its thread has it
        self.places: set[Place] = set()
        self._turn: SimpleQueue[None] = SimpleQueue()
        self._turn.put(None)
        self._calls: set[Call] = set()
        #: How many bodies are being sent, and how many of these each organization sends.
        self._sent, self._bodies = 0, dict[str, int]()
        #: When a call of an organization waited in vain.
        self._in_vain: dict[str, float] = {}

    def held(self, kind: Kind) -> int:
        """How many places requests of a kind hold."""
        with self.lock:
            return sum(place.kind is kind for place in self.places)

    def enter(self, kind: Kind, holder: str = "") -> Place | None:
        """A place for a person's or a reader's request; None if there is none, or none for this holder."""
        with self.lock:
            own = [place for place in self.places if place.kind is kind]
            if len(own) >= self._half or len(self.places) >= self._most_shared:
                return None
            since = time.monotonic() - HELD_UP
            is_last = len(own) + 1 == self._half or len(self.places) + 1 == self._most_shared
            if is_last and any(place.holder == holder and place.began < since for place in own):
                return None
            place = Place(self, kind, holder)
            self.places.add(place)
            return place

    def enter_patiently(self, kind: Kind, holder: str = "") -> Place | None:
        """The same for a change by a program: Terraform makes ten at once, and none a second time.

        It waits for a place, but not for long, and only while two threads are left for workers.
        """
        place = self.enter(kind, holder)
        with self.lock:
            if place or len(self._calls) + len(self.places) + self._waiting >= self._all_but_two:
                return place
            self._waiting += 1
        until = time.monotonic() + HELD_UP
        try:
            while place is None and time.monotonic() < until:
                time.sleep(PAUSE)
                place = self.enter(kind, holder)
        finally:
            with self.lock:
                self._waiting -= 1
        return place

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The turn of a person's or a reader's request to compute, while it is entered; it is not waited for long."""
        has_turn = False
        with suppress(Empty):
            self._turn.get(timeout=PATIENCE)
            has_turn = True
        try:
            yield
        finally:
            if has_turn:
                self._turn.put(None)

    @contextmanager
    def worker(self, authorization: str) -> Iterator[Call]:
        """A worker's call, for as long as it is entered; without a thread for it if it is not to take the last one."""
        # With more than all but one at once there are threads enough, as in other servers.
        is_last = len(self._calls) + len(self.places) == self._all_but_one
        holder = organization_in(authorization)
        call = Call(not (is_last and self._waits_in_vain(holder)), time.monotonic())
        self._calls.add(call)
        try:
            with turns.taken(holder):
                yield call
        finally:
            self._calls.discard(call)
            now = time.monotonic()
            if call.began < now - HELD_UP and call.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                self._in_vain[holder] = now

    @contextmanager
    def body(self, organization_id: str) -> Iterator[None]:
        """The body of a worker's call, for as long as it is read; TooManyBodiesError if there is no thread for it.

        A body may come slowly, and holds its thread until it is there. The bodies of one organization hold at most half
        of the threads, and where half are held already, one.
        """
        with turns.reading():
            until = time.monotonic() + 2 * PAUSE
            while not self._takes_body(organization_id):
                if time.monotonic() > until:
                    raise TooManyBodiesError
                time.sleep(PAUSE / 2)
            try:
                yield
            finally:
                with self.lock:
                    self._sent -= 1
                    if left := self._bodies.pop(organization_id) - 1:
                        self._bodies[organization_id] = left

    def _takes_body(self, organization_id: str) -> bool:
        with self.lock:
            own = self._bodies.get(organization_id, 0)
            if own and self._sent >= self._most_bodies:
                return False
            self._sent, self._bodies[organization_id] = self._sent + 1, own + 1
            return True

    def _waits_in_vain(self, holder: str) -> bool:
        """Whether a call of the same organization did so lately."""
        return self._in_vain.get(holder, 0.0) > time.monotonic() - LATELY


def holder_of(request: HttpRequest, kind: Kind) -> str:
    """Who holds a place: a person by the session, a reader by the organization of the key."""
    if kind is Kind.PEOPLE:
        return request.COOKIES.get(settings.SESSION_COOKIE_NAME) or request.META.get("REMOTE_ADDR", "")
    return organization_in(request.META.get("HTTP_AUTHORIZATION", ""))


def organization_in(authorization: str) -> str:
    """Whose key it says it is. Nobody has looked whether that is true, but no forged key holds a thread up."""
    payload = authorization.partition(".")[2].partition(".")[0]
    return _organization_told_by(payload) if len(payload) <= LONGEST_PAYLOAD else ""


@lru_cache(1_000)
def _organization_told_by(payload: str) -> str:
    """Of a token's payload, which is no secret without its signature."""
    try:
        return str(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["org"])
    except (KeyError, TypeError, ValueError, RecursionError, binascii.Error):
        return ""


bulkhead = Bulkhead(THREADS, SHARED_THREADS)
