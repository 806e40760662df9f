"""What the database has on record, to compare with what callers were answered."""

import sqlite3

import psycopg

from tests.drills.load import Answer, Answers


def missing_starts(database_url: str, answers: Answers) -> list[Answer]:
    """The acknowledged starts of which there is no record."""
    recorded = recorded_marks(database_url)
    return [answer for answer in answers.of(200) if answer.call.mark and answer.call.mark not in recorded]


def recorded_marks(database_url: str) -> set[str]:
    """The marks of all starts on record, as a fresh connection sees them."""
    if database_url.startswith("sqlite:"):
        connection = sqlite3.connect(database_url.removeprefix("sqlite:///"))
        rows = connection.execute("SELECT json_extract(system_info, '$.mark') FROM workers_workerstart").fetchall()
        connection.close()
    else:
        with psycopg.connect(database_url) as server:
            rows = server.execute("SELECT system_info ->> 'mark' FROM workers_workerstart").fetchall()
    return {row[0] for row in rows}
