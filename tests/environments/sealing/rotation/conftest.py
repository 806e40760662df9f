"""A fleet with sealed secrets."""

import pytest
from pytest_django import Settings

from environments.encryption import KeyRing, generate_key


@pytest.fixture
def new_ring(settings: Settings) -> KeyRing:
    """The ring with a new active key; the former one only opens."""
    ring = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    settings.ENCRYPTION_KEYS = ring
    return ring
