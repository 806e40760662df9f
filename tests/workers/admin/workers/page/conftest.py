"""A fleet, and somebody who looks at it."""

import pytest
from django.test import Client

from tests.support.console import person, signed_in
from tests.support.factories import Fleet


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in(person(is_staff=True, is_superuser=True))
