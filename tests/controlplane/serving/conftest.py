"""What was seen of the trail is in a file beside SQLite's, and ends with each test as its rows do."""

from collections.abc import Iterator

import pytest

from controlplane.serving import restoration


@pytest.fixture(autouse=True)
def nothing_was_seen() -> Iterator[None]:
    yield
    restoration.forget()
