"""The programs that we hand out spread their calls, and end when they are told to."""

import socket
import time
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import plain_worker
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.faults import ScriptedPlane, in_seconds, refusal, reset
from tests.support.programs import KEY, TAKEN


class Pauses:
    """Stands in for the event that ends heartbeats: notes how long each pause would be, and takes none."""

    def __init__(self, count: int) -> None:
        self.noted: list[float] = []
        self._count = count

    def wait(self, seconds: float) -> bool:
        self.noted.append(seconds)
        return len(self.noted) > self._count


def pauses_of(plane: ScriptedPlane, monkeypatch: pytest.MonkeyPatch, beats: int) -> list[float]:
    for name, value in {"CONTROL_PLANE_URL": plane.url, "WORKER_ID": "w", "API_KEY": KEY}.items():
        monkeypatch.setenv(name, value)
    pauses: Any = Pauses(beats)
    plain_worker.keep_heartbeating(60, pauses)
    return pauses.noted


def test_heartbeats_keep_a_moment_of_their_own_and_choose_a_new_one_after_trouble(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that workers that were held up by one outage are spread over the whole interval after it."""
    first, after_trouble = [], []
    for _ in range(60):
        plane = ScriptedPlane(heartbeat=[TAKEN, TAKEN, reset, refusal(503, "Away.", Retry_After="100"), TAKEN])
        at_once, new, kept, reset_, asked, kept_again = pauses_of(plane, monkeypatch, 5)
        assert at_once == 0
        assert 59 < kept <= 60
        assert 59 < kept_again <= 60
        first.append(new)
        after_trouble += [reset_, asked - 100]
        plane.close()
    for chosen in (first, after_trouble):
        assert all(0 <= pause <= 60 for pause in chosen)
        quarters = {int(pause // 15) for pause in chosen}
        assert quarters >= {0, 1, 2, 3}


def test_an_answer_that_is_late_moves_no_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand answers that come together after a stall would have a thousand heartbeats come together from then on."""

    def late(connection: socket.socket) -> None:
        time.sleep(0.5)
        TAKEN(connection)

    plane = ScriptedPlane(heartbeat=[TAKEN, late])
    *_, kept = pauses_of(plane, monkeypatch, 2)
    assert 59 < kept <= 59.5
    plane.close()


@given(st.text() | st.integers().map(str) | st.datetimes().map(format_datetime))
def test_any_retry_after_is_some_seconds_at_most_five_minutes(text: str) -> None:
    assert 0 <= plain_worker.seconds_of(text) <= 300


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("0", 0, 0), ("7", 7, 7), ("86400", 300, 300), ("-5", 0, 0), ("1.5", 0, 0), ("\u00b2", 0, 0)],
)
def test_a_retry_after_in_seconds(text: str, least: float, most: float) -> None:
    assert least <= plain_worker.seconds_of(text) <= most


def test_a_retry_after_as_a_date() -> None:
    assert 100 < plain_worker.seconds_of(in_seconds(120)) <= 120


CONTAINER = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (
            f"658 639 254:1 /var/lib/docker/containers/{CONTAINER}/hostname /etc/hostname rw,relatime - ext4 /dev/vda1 rw",
            CONTAINER,
        ),
        (
            f"7 6 8:1 /lib/containerd/io.containerd.grpc.v1.cri/sandboxes/{CONTAINER}/hostname /etc/hostname rw - xfs /dev/sda rw",
            CONTAINER,
        ),
        (
            f"9 8 0:24 /containers/storage/overlay-containers/{CONTAINER}/userdata/hostname /etc/hostname rw - tmpfs tmpfs rw",
            CONTAINER,
        ),
        (f"5 4 0:5 / /var/lib/docker/overlay2/{CONTAINER}/merged rw - overlay overlay rw", ""),
        ("5 4 0:5 / / rw - ext4 /dev/vda1 rw", ""),
    ],
)
def test_the_container_is_known_by_where_its_host_name_comes_from(tmp_path: Path, line: str, found: str) -> None:
    (tmp_path / "mountinfo").write_text(f"1 1 0:1 / /proc rw - proc proc rw\n{line}\n")
    assert plain_worker.told_by_linux(str(tmp_path / "mountinfo"), plain_worker.OF_CONTAINER) == found


def test_what_linux_does_not_tell_is_left_empty(tmp_path: Path) -> None:
    assert plain_worker.told_by_linux(str(tmp_path / "none"), "(.)") == ""
