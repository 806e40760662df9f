"""Bodies as clients frame them, sent to the real server: a length, chunks in odd pieces, HTTP/2, and what breaks off."""

import itertools
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from http.client import HTTPResponse
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.servers import ControlPlane

CURL = shutil.which("curl") or ""
VERSION = subprocess.run([CURL, "--version"], capture_output=True, check=True).stdout if CURL else b""  # noqa: S603
HAS_HTTP2 = b"HTTP2" in VERSION
JSON = "Content-Type: application/json\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Call:
    """A call of the API, to be sent in any framing."""

    def __init__(self, plane: ControlPlane, path: str, api_key: str = "") -> None:
        self.address = urlsplit(plane.url).netloc
        self.path = path
        self.headers = f"Authorization: Bearer {api_key}\r\n" if api_key else ""

    def send(self, *parts: bytes, headers: str, ends: bool = False) -> Answer:
        """Each part in a packet of its own, as far as that can be; `ends` closes our direction after the last."""
        host, _, port = self.address.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            head = f"POST {self.path} HTTP/1.1\r\nHost: {self.address}\r\n{self.headers}{headers}\r\n"
            for part in (head.encode(), *parts):
                connection.sendall(part)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            response = HTTPResponse(connection)
            response.begin()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())


def sized(call: Call, body: bytes) -> Answer:
    return call.send(body, headers=f"{JSON}Content-Length: {len(body)}\r\n")


def in_odd_chunks(call: Call, body: bytes) -> Answer:
    """Cut at odd places, with sizes in either case and with zeros, an extension and a trailer."""
    third = len(body) // 3 + 1
    pieces = [body[:1], body[1 : 1 + third], body[1 + third :]]
    sent = b"".join(f"{len(piece):04X};part=1\r\n".encode() + piece + b"\r\n" for piece in pieces if piece)
    sent += b"0\r\nX-Checksum: none\r\n\r\n"
    cuts = [0, 2, 5, 7, 20, len(sent) - 3, len(sent)]
    return call.send(*(sent[a:b] for a, b in itertools.pairwise(cuts)), headers=JSON + CHUNKED)


def in_one_chunk(call: Call, body: bytes) -> Answer:
    return call.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), headers=JSON + CHUNKED.replace("c", "C", 1))


def when_told_to_continue(call: Call, body: bytes) -> Answer:
    """As curl sends what is large: it asks whether it may."""
    host, _, port = call.address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {call.path} HTTP/1.1\r\nHost: {call.address}\r\n{call.headers}{JSON}{CHUNKED}Expect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        interim = b""
        while not interim.endswith(b"\r\n\r\n"):
            interim += connection.recv(1)
        assert interim.startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        response = HTTPResponse(connection)
        response.begin()
        return Answer(response.status, dict(response.getheaders()), response.read())


def over_http2(call: Call, body: bytes | None, *headers: str, seconds_late: float = 0) -> Answer:
    """With nothing told of its length, perhaps some time after the headers; None sends no body at all."""
    if not HAS_HTTP2:
        pytest.skip("curl with HTTP/2 is not installed")
    sent = [line for line in (call.headers + JSON).split("\r\n") if line]
    options = [option for header in (*sent, *headers) for option in ("--header", header)]
    options += ["--upload-file", "-"] if body is not None else []
    command = [CURL, "-sS", "--http2-prior-knowledge", "-X", "POST", "--write-out", "\n%{http_code} %{http_version}"]
    command += [*options, f"http://{call.address}{call.path}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as curl:  # noqa: S603
        time.sleep(seconds_late)
        told, _ = curl.communicate(body, timeout=30)
    assert curl.returncode == 0
    content, _, words = told.rpartition(b"\n")
    status, version = words.split()
    assert version == b"2"
    return Answer(int(status), {}, content)


FRAMINGS: dict[str, Callable[[Call, bytes], Answer]] = {
    "a length": sized,
    "odd chunks": in_odd_chunks,
    "one chunk": in_one_chunk,
    "when told to continue": when_told_to_continue,
    "HTTP/2": over_http2,
}
framings = pytest.mark.parametrize("framed", FRAMINGS.values(), ids=FRAMINGS)


@pytest.fixture(scope="module")
def api_key(control_plane: ControlPlane) -> str:
    scope = ("--organization", control_plane.organization_id)
    issued = control_plane.manage("issue_api_key", *scope, "--name", "framing", "--format", "json")
    return str(json.loads(issued.stdout)["api_key"])


@pytest.fixture(scope="module")
def calls(control_plane: ControlPlane, api_key: str) -> dict[str, tuple[Call, bytes, int]]:
    """Every call with a body: how it is called, with what, and how it is answered."""
    worker, queue = f"workers/{control_plane.worker_id}", f"worker-queues/{control_plane.queue_id}"
    told = {"system_info": {"hostname": "w", "text": "é" * 100}}
    named = {"worker_id": control_plane.worker_id, "environment_name": control_plane.environment}
    found = {
        "start": (f"{worker}/start", told, 200),
        "queue start": (f"{queue}/start", told, 200),
        "heartbeat": (f"{worker}/heartbeat", told | {"logs": ["x" * 900] * 400}, 204),
        "simple heartbeat": ("workers/heartbeat", named, 204),
        "update lock": (f"{queue}/workers/build-7/update-lock", {"worker_id": "build-7"}, 200),
        "goodbye": (f"{worker}/disconnect", {"reason": "shutdown"}, 204),
    }
    return {
        name: (Call(control_plane, f"/api/v1/{path}", api_key), json.dumps(body).encode(), status)
        for name, (path, body, status) in found.items()
    }


@framings
def test_every_call_takes_its_body_however_it_is_framed(
    calls: dict[str, tuple[Call, bytes, int]], framed: Callable[[Call, bytes], Answer]
) -> None:
    for name, (call, body, status) in calls.items():
        answer = framed(call, body)
        assert answer.status == status, (name, answer)


@framings
def test_every_call_refuses_a_body_that_is_no_json_however_it_is_framed(
    calls: dict[str, tuple[Call, bytes, int]], framed: Callable[[Call, bytes], Answer]
) -> None:
    for name, (call, body, _) in calls.items():
        for wrong in (body[:-1], body + b"x", b" "):
            answer = framed(call, wrong)
            assert answer.status == 422, (name, answer)


@framings
def test_a_body_beyond_the_limit_is_refused_however_it_is_framed(
    calls: dict[str, tuple[Call, bytes, int]], framed: Callable[[Call, bytes], Answer]
) -> None:
    call, _, _ = calls["start"]
    if framed is not when_told_to_continue:
        assert framed(call, b"{}" + b" " * (64 * 1024 - 1)).status == 413
    assert framed(call, b"{}" + b" " * (64 * 1024 - 2)).status == 200
    assert framed(calls["heartbeat"][0], b"{}" + b" " * (1024 * 1024 - 2)).status in {204, 409}


def test_a_queue_start_needs_no_body(calls: dict[str, tuple[Call, bytes, int]]) -> None:
    call, _, _ = calls["queue start"]
    assert call.send(headers="").status == 200
    assert call.send(headers="Content-Length: 0\r\n").status == 200
    assert over_http2(call, None).status == 200
    assert over_http2(calls["start"][0], None).status == 422


#: What looks like the end of chunks to an application, and is none.
BROKEN = {
    "no chunk": b"",
    "a size that is none": b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-1\r\n{}\r\n0\r\n\r\n",
    "a size beyond all bounds": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "half a chunk": b'20\r\n{"system_info":{',
    "half a size": b"2",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_chunks_that_break_off_are_never_taken_for_no_body(
    calls: dict[str, tuple[Call, bytes, int]], control_plane: ControlPlane, sent: bytes
) -> None:
    call, _, _ = calls["queue start"]
    before = workers_of(control_plane, call)
    assert call.send(sent, headers=JSON + CHUNKED, ends=True).status in {400, 422}
    assert workers_of(control_plane, call) == before


def test_a_body_that_ends_before_its_length_is_refused(calls: dict[str, tuple[Call, bytes, int]]) -> None:
    call, _, _ = calls["queue start"]
    for sent in (b"", b"{}"):
        assert call.send(sent, headers=f"{JSON}Content-Length: 40\r\n", ends=True).status in {400, 422}


def workers_of(plane: ControlPlane, call: Call) -> int:
    authorization = call.headers.strip().partition(": ")[2]
    path = f"/api/v1/worker-queues/{plane.queue_id}/workers?limit=1"
    _, headers, _ = plane.request("GET", path, headers={"Authorization": authorization})
    return int(headers["X-Total-Count"])


def test_the_next_call_on_the_connection_begins_where_the_chunks_ended(
    calls: dict[str, tuple[Call, bytes, int]],
) -> None:
    call, _, _ = calls["start"]
    host, _, port = call.address.partition(":")
    head = f"POST {call.path} HTTP/1.1\r\nHost: {call.address}\r\n{call.headers}{JSON}{CHUNKED}\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        for _ in range(2):
            connection.sendall(head + b"2\r\n{}\r\n0\r\n\r\n")
            response = HTTPResponse(connection)
            response.begin()
            assert response.status == 200
            assert response.getheader("Connection") is None
            response.read()


@pytest.mark.parametrize("headers", ["", "Content-Type: text/plain\r\n"])
def test_who_is_refused_before_the_body_is_read_is_told_that_the_connection_ends(
    calls: dict[str, tuple[Call, bytes, int]], headers: str
) -> None:
    call, _, _ = calls["start"]
    answer = call.send(b"2\r\n{}\r\n0\r\n\r\n", headers=headers + CHUNKED)
    assert (answer.status, answer.headers.get("connection")) == (415, "close")


def test_who_is_refused_before_the_body_is_read_is_answered_over_http2_too(
    calls: dict[str, tuple[Call, bytes, int]], control_plane: ControlPlane
) -> None:
    call, body, _ = calls["start"]
    stranger = Call(control_plane, call.path, "nobody's")
    for _ in range(12):
        assert over_http2(stranger, body, seconds_late=0.1).status == 401


@pytest.mark.parametrize("path", ["/api/health", "/livez", "/readyz", "/api/openapi.json", "/api/v1/worker-queues"])
def test_head_is_answered_as_get_without_the_body(control_plane: ControlPlane, api_key: str, path: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}"}
    status, told, body = control_plane.request("HEAD", path, headers=headers)
    of_get = control_plane.request("GET", path, headers=headers)
    assert (status, body) == (of_get[0], b"") == (200, b"")
    assert told["Content-Type"] == of_get[1]["Content-Type"]
    assert control_plane.request("OPTIONS", path, headers=headers)[0] in {200, 204}


# --- People's forms ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def form(control_plane: ControlPlane) -> tuple[Call, bytes, str]:
    """The log-in page's form, filled in, with the headers that a browser would send."""
    _, headers, body = control_plane.request("GET", "/admin/login/")
    cookie = str(headers["Set-Cookie"]).partition(";")[0]
    (token,) = set(re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', body.decode()))
    told = {"username": control_plane.admin_username, "password": control_plane.admin_password}
    filled = urlencode(told | {"csrfmiddlewaretoken": token}).encode()
    kind = "Content-Type: application/x-www-form-urlencoded\r\n"
    return Call(control_plane, "/admin/login/"), filled, f"{kind}Cookie: {cookie}\r\nReferer: {control_plane.url}/\r\n"


def test_a_form_is_taken_in_chunks(form: tuple[Call, bytes, str]) -> None:
    call, filled, headers = form
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (filled[:7], filled[7:])) + b"0\r\n\r\n"
    for answer in (
        call.send(filled, headers=f"{headers}Content-Length: {len(filled)}\r\n"),
        call.send(chunks, headers=headers + CHUNKED),
    ):
        assert (answer.status, answer.headers.get("location")) == (302, "/admin/")


def test_a_form_in_chunks_beyond_djangos_own_limit_is_refused(form: tuple[Call, bytes, str]) -> None:
    call, filled, headers = form
    large = filled + b"&x=" + b"x" * 2_700_000
    began = time.monotonic()
    answer = call.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(large), large), headers=headers + CHUNKED)
    assert answer.status == 413
    assert time.monotonic() - began < 10
