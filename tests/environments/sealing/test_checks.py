import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from pytest_django import Settings

from environments.encryption import Key, KeyRing, generate_key
from environments.models import DataKey
from environments.sealing.checks import key_ring_problems
from tests.support import factories
from tests.support.factories import Fleet


def test_finds_nothing_wrong_with_a_ring_that_opens_everything(fleet: Fleet) -> None:
    assert key_ring_problems() == []
    call_command("check", databases=["default"])


def test_finds_nothing_wrong_with_an_empty_database(db: None) -> None:
    assert key_ring_problems() == []


def test_names_the_key_that_the_ring_lacks(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    (problem,) = key_ring_problems()
    assert "ek-test1" in problem


def test_check_fails_with_an_id_and_a_hint(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-other")])
    with pytest.raises(SystemCheckError, match=r"(?s)environments\.E001.*ek-test1.*HINT.*ENCRYPTION_KEYS"):
        call_command("check", databases=["default"])


def test_names_a_key_whose_id_is_right_and_whose_bytes_are_not(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([Key("ek-test1", b"x" * 32)])
    (problem,) = key_ring_problems()
    assert "ek-test1" in problem


def test_names_a_known_answer_that_does_not_open(fleet: Fleet) -> None:
    row = DataKey.objects.get()
    DataKey.objects.update(known_answer=row.wrapped_key)
    assert len(key_ring_problems()) == 1


def test_a_key_that_only_opens_is_enough(fleet: Fleet, settings: Settings) -> None:
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-new"), settings.ENCRYPTION_KEYS.active])
    assert key_ring_problems() == []


def test_names_each_missing_key_once(fleet: Fleet, settings: Settings) -> None:
    first = settings.ENCRYPTION_KEYS.active
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-second"), first])
    factories.create_fleet()
    factories.create_fleet()
    settings.ENCRYPTION_KEYS = KeyRing([generate_key("ek-third")])
    problems = key_ring_problems()
    assert len(problems) == 2
    assert "ek-second" in problems[0]
    assert "ek-test1" in problems[1]
