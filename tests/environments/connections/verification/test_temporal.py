import asyncio
import gc
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings
from temporalio.api.taskqueue.v1 import PollerInfo, TaskQueue
from temporalio.api.worker.v1 import WorkerListInfo
from temporalio.api.workflowservice.v1 import DescribeTaskQueueResponse, PollActivityTaskQueueRequest
from temporalio.service import ConnectConfig, ServiceClient

from environments.connections.verification import ConnectionProblemError, RefusedError, Verification, verify
from environments.connections.verification.looks import Place
from environments.connections.verification.task_queues import Listed, _listed, _seen
from environments.connections.verification.temporal import _runtime, pollers_of, verify_temporal
from environments.encryption import Secret
from environments.models import TemporalConnection
from tests.support.endpoints import KEY, Authority, Endpoint, answering, grpc_status, no_new_threads, silent
from tests.support.servers import TemporalServer

pytestmark = pytest.mark.once

type Serve = Callable[..., Endpoint]


@pytest.fixture(autouse=True)
def nothing_is_left_or_told(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Iterator[None]:
    settings.CONNECTION_HOSTS = ()
    caplog.set_level(logging.DEBUG)
    yield
    # Of Temporal's client nothing at all: its own log would bypass ours.
    assert "".join(capfd.readouterr()) == ""
    assert KEY not in caplog.text


def connection_to(host: str, *, namespace: str = "default", is_tls: bool = False) -> TemporalConnection:
    return TemporalConnection(host=host, namespace=namespace, is_tls_enabled=is_tls)


def verified(connection: TemporalConnection, key: str = KEY, **options: Any) -> Verification:
    found = verify_temporal(connection, Secret(key), **options)
    assert KEY not in repr(found)
    assert found.is_ok is not bool(found.problem)
    assert (found.problem + found.details).isprintable()
    return found


def problem_of(host: str, **options: Any) -> str:
    return verified(connection_to(host, **options)).problem


def connections_to(port: int) -> set[str]:
    """This process's connections to a local port."""
    sockets = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # closed in the meantime
            sockets.add(str(descriptor.readlink()))
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}")} & sockets


# --- A real server ---------------------------------------------------------------------------------------------------


def test_verifies_server_and_namespace(temporal_server: TemporalServer) -> None:
    connection = connection_to(temporal_server.host)
    with no_new_threads():
        found = verified(connection)
    assert (found.is_ok, found.problem) == (True, "")
    assert found.details.startswith("Temporal 1.")
    assert 0 < found.latency_ms < 3000
    assert verify(connection, Secret(KEY)).is_ok


def test_tells_a_namespace_that_does_not_exist(temporal_server: TemporalServer) -> None:
    assert problem_of(temporal_server.host, namespace="nope") == "Temporal has no namespace nope."
    assert not verified(connection_to(temporal_server.host, namespace="")).is_ok
    assert problem_of(temporal_server.host, namespace=f"a\r\n{'x' * 300}").isprintable()


def test_needs_no_key_where_none_is_required(temporal_server: TemporalServer) -> None:
    connection = connection_to(temporal_server.host)
    assert "there is none" in verified(connection, "").problem
    connection.requires_api_key = False
    assert verified(connection, "").is_ok


def test_tls_towards_a_plain_temporal_is_a_problem(temporal_server: TemporalServer) -> None:
    assert "TLS handshake" in problem_of(temporal_server.host, is_tls=True)


def test_connects_to_the_address_of_the_one_look_up(temporal_server: TemporalServer) -> None:
    asked: list[str] = []

    def rebinding(name: str) -> list[str]:
        asked.append(name)
        return ["127.0.0.1"] if len(asked) == 1 else ["169.254.169.254"]

    port = temporal_server.host.rpartition(":")[2]
    found = verified(connection_to(f"temporal.example.com:{port}"), resolve=rebinding)
    assert (found.problem, asked) == ("", ["temporal.example.com"])


def test_many_threads_verify_at_once_and_leave_no_connection(temporal_server: TemporalServer) -> None:
    port = int(temporal_server.host.rpartition(":")[2])
    gc.disable()  # what is left must not be closed by chance
    try:
        with no_new_threads(), ThreadPoolExecutor(8) as pool:
            namespaces = ["default", "nope"] * 10
            problems = list(pool.map(lambda name: problem_of(temporal_server.host, namespace=name), namespaces))
        assert problems == ["", "Temporal has no namespace nope."] * 10
        deadline = time.monotonic() + 5
        while connections_to(port) and time.monotonic() < deadline:
            time.sleep(0.01)  # Temporal's client closes in its own thread
        assert connections_to(port) == set()
    finally:
        gc.enable()


def test_tells_who_polls_a_task_queue(temporal_server: TemporalServer) -> None:
    connection = connection_to(temporal_server.host)
    assert pollers_of(connection, Secret(KEY), "nobody-polls") == ()
    found = asyncio.run(_pollers_while_polling(connection, "somebody-polls"))
    assert [(poller.kind, poller.identity) for poller in found] == [("activity", "42@host")]
    assert found[0].last_access_at is not None
    assert abs(datetime.now(UTC) - found[0].last_access_at) < timedelta(minutes=1)


async def _pollers_while_polling(connection: TemporalConnection, name: str) -> tuple[Any, ...]:
    client = await ServiceClient.connect(ConnectConfig(connection.host, runtime=_runtime()))
    request = PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=name), identity="4\x002@host")
    polling = asyncio.create_task(client.workflow_service.poll_activity_task_queue(request))
    found: tuple[Any, ...] = ()
    deadline = time.monotonic() + 10
    while not found and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
        found = await asyncio.to_thread(pollers_of, connection, Secret(KEY), name)
    polling.cancel()
    with suppress(asyncio.CancelledError):
        await polling
    vars(client.worker_service_client._bridge_client).clear()
    return found


def test_says_why_it_cannot_tell_who_polls(temporal_server: TemporalServer) -> None:
    for host, namespace, message in (
        (temporal_server.host, "nope", "no namespace nope"),
        ("127.0.0.1:1", "default", "Nothing listens"),
        ("169.254.169.254:7233", "default", "never connects"),
    ):
        with pytest.raises(ConnectionProblemError, match=message) as caught:
            pollers_of(connection_to(host, namespace=namespace), Secret(KEY), "queue")
        assert KEY not in repr(caught.value)
        assert caught.value.__cause__ is None


# --- Other servers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (16, "The API key is not accepted for the namespace default."),
        (7, "The API key is not accepted for the namespace default."),
        (12, "The server speaks gRPC, but is not Temporal."),
        (14, "does not answer as Temporal does"),
        (2, "does not answer as Temporal does"),
    ],
    ids=["unauthenticated", "permission denied", "unimplemented", "unavailable", "unknown"],
)
def test_tells_a_refusal_without_repeating_it(serve: Serve, status: int, problem: str) -> None:
    assert problem in problem_of(serve(grpc_status(status)).host)


def test_keeps_the_name_in_tls(serve: Serve, trusted: Authority) -> None:
    for name, address in (("temporal.example.com", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")):
        server = serve(grpc_status(16), tls=trusted.context_for(name, "h2"), address=address)
        shown = f"[{name}]" if ":" in name else name
        found = verified(connection_to(f"{shown}:{server.port}", is_tls=True), resolve=lambda _: ["127.0.0.1"])
        assert "not accepted" in found.problem


def test_refuses_a_certificate_of_another_name(serve: Serve, trusted: Authority) -> None:
    server = serve(grpc_status(16), tls=trusted.context_for("other.example.com", "h2"))
    assert "is not trusted" in problem_of(server.host, is_tls=True)


def test_other_servers_are_problems(serve: Serve, trusted: Authority) -> None:
    tls = serve(silent, tls=trusted.context_for("127.0.0.1", "h2"))
    assert "does it want TLS?" in problem_of(tls.host)
    web = serve(answering("200 OK"), tls=trusted.context_for("127.0.0.1", "http/1.1"))
    assert "speaks TLS, but not gRPC" in problem_of(web.host, is_tls=True)
    ssh = serve(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH_9.9\r\n" + connection.recv(1)[:0]))
    assert "does not answer as Temporal does" in problem_of(ssh.host)
    closed = serve(lambda connection: connection.recv(1))
    closed.stop()
    assert problem_of(closed.host) == f"Nothing listens at {closed.host}."


@pytest.mark.parametrize("host", ["", "http://a:1", "a b:1", "user@a:1", "0x7f000001:1", "[fe80::1%1]:7", "10.0.0.1:1"])
def test_refuses_a_host_without_a_connection(host: str) -> None:
    assert not verified(connection_to(host), resolve=lambda _: ["127.0.0.1"]).is_ok
    with pytest.raises(RefusedError):
        pollers_of(connection_to(host), Secret(KEY), "queue", resolve=lambda _: ["10.0.0.1"])


def test_silence_ends_after_three_seconds(serve: Serve, trusted: Authority) -> None:
    plain, tls = serve(silent), serve(silent, tls=trusted.context_for("127.0.0.1", "h2"))
    hosts = [(plain.host, False), (plain.host, True), (tls.host, True)] * 2
    started = time.monotonic()
    with no_new_threads(), ThreadPoolExecutor(len(hosts)) as pool:
        found = list(pool.map(lambda one: problem_of(one[0], is_tls=one[1]), hosts))
    assert time.monotonic() - started < 5
    assert {problem for problem in found if "within 3 seconds" not in problem} == set()


def test_many_pollers_of_many_listed_workers_are_told_apart_fast() -> None:
    now = datetime.now(UTC)
    pollers = [PollerInfo(identity=f"{pid}@host") for pid in range(4_000)]
    for poller in pollers:
        poller.last_access_time.FromDatetime(now)
    listed = {f"{pid}@host": [Listed("", Place("host", pid), is_running=pid > 0)] for pid in range(10_000)}
    began = time.process_time()
    seen = _seen(DescribeTaskQueueResponse(pollers=pollers), listed, now)
    assert (len(seen), time.process_time() - began < 0.5) == (3_999, True)


@pytest.mark.parametrize(
    ("host", "pid", "place"),
    [
        ("host", "7", Place("host", 7)),
        ("host", "7" * 5_000, Place("other", 9)),
        ("ho\0st", "7", Place("other", 9)),
        ("", "", Place("other", 9)),
    ],
)
def test_a_listed_worker_tells_a_place_that_can_be_looked_for(host: str, pid: str, place: Place) -> None:
    assert _listed(WorkerListInfo(host_name=host, process_id=pid, worker_identity="9@other")).place == place
