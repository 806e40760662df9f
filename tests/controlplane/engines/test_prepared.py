"""What PostgreSQL has planned for a connection stays planned when a transaction is taken back."""

import pytest
from django.db import connection, transaction

from tests.support.calls import fresh_fleet, start

pytestmark = pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only")
ASKED = "SELECT count(*) FROM environments_organization WHERE name > %s"


def prepared() -> set[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name FROM pg_prepared_statements WHERE name LIKE '_pg3_%%'")
        return {name for (name,) in cursor.fetchall()}


@pytest.mark.parametrize("kind", ["a savepoint", "a transaction"])
def test_a_start_is_not_planned_anew_after_another_s_change_is_taken_back(kind: str, transactional_db: None) -> None:
    fleet = fresh_fleet()
    for _ in range(4):
        assert start(fleet).status_code == 200
    before = prepared()
    with transaction.atomic():
        if kind == "a savepoint":
            with pytest.raises(ZeroDivisionError), transaction.atomic():
                raise ZeroDivisionError
        else:
            transaction.set_rollback(True)
    assert start(fleet).status_code == 200
    assert before
    assert before <= prepared()


def test_what_is_dropped_is_forgotten(transactional_db: None) -> None:
    with connection.cursor() as cursor:
        for _ in range(4):
            cursor.execute(ASKED, ["a"])
        assert prepared()
        cursor.execute("CREATE TABLE tests_dropped (id int)")
        cursor.execute("DROP TABLE tests_dropped")
        cursor.execute(ASKED, ["a"])
    assert not prepared()
