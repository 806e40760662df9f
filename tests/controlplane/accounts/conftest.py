"""Fixtures of a person who signed in, in a real Chromium."""

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.support.logins import PASSWORD


@pytest.fixture
def ada(db: None) -> User:
    return User.objects.create_user("ada", password=PASSWORD, is_staff=True, is_superuser=True)


@pytest.fixture
def client() -> Client:
    return Client(raise_request_exception=False)
