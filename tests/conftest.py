"""Registers the fixtures of all tests, real database files, and one printed seed for all that is random."""

import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import hypothesis
import psycopg
import pytest
from django.conf import settings
from django.db import connection
from django.test import TransactionTestCase

from controlplane.engines.circuit import circuit
from controlplane.serving.bulkhead import bulkhead
from controlplane.startup import env
from tests.support.databases import empty_tables, fresh_database

if TYPE_CHECKING:
    from tests.support.factories import Fleet

pytest_plugins = ["tests.support.browser", "tests.support.circuits", "tests.support.quick", "tests.support.servers"]

hypothesis.settings.register_profile("controlplane", deadline=None, print_blob=True)
hypothesis.settings.load_profile("controlplane")


SEED_VARIABLE = "TEST_SEED"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Chooses the seed that Hypothesis and `seeded_random` use, unless `--hypothesis-seed` repeats an earlier run's.

    The processes of xdist are told that option only if it was given, so what was chosen reaches them as a variable.
    """
    seed = config.option.hypothesis_seed or os.environ.get(SEED_VARIABLE) or str(random.getrandbits(32))
    config.option.hypothesis_seed = os.environ[SEED_VARIABLE] = seed


def pytest_report_header(config: pytest.Config) -> str:
    """Tells the seed with which the run can be repeated."""
    return f"seed: --hypothesis-seed={config.option.hypothesis_seed}"


@pytest.fixture
def seeded_random(request: pytest.FixtureRequest) -> random.Random:
    """A random generator that the run's seed and the test's name determine."""
    seed = request.config.getoption("hypothesis_seed")
    print(f"--hypothesis-seed={seed}")  # noqa: T201  # pytest shows it with a failure
    return random.Random(f"{seed} {request.node.name}")  # noqa: S311


@pytest.fixture(scope="session")
def django_db_keepdb() -> bool:
    """Takes SQLite's file as it finds it, which is what `django_db_modify_db_settings` has put there."""
    return connection.vendor == "sqlite"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(request: pytest.FixtureRequest, migrated_template: str) -> None:
    """Copies the run's migrated database for this process's tests.

    SQLite is tested as it is used, in a file; Django's default is memory, which knows neither WAL nor waiting.
    """
    database: Any = settings.DATABASES["default"]
    if connection.vendor == "sqlite":
        copy = env.database(fresh_database("test", migrated_template))
        database.setdefault("TEST", {})["NAME"] = copy["NAME"]
    else:
        database.setdefault("TEST", {})["TEMPLATE"] = migrated_template
        request.getfixturevalue("django_db_modify_db_settings_parallel_suffix")


@pytest.fixture(scope="session", autouse=True)
def what_takes_long_by_design() -> None:
    """Spares tests what would take longer than they do; servers that run as processes of their own are as always.

    Each test's client looks at every static file there is, and a password is hashed a million times.
    """
    settings.WHITENOISE_AUTOREFRESH = True
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    # Django truncates each table and index anew and makes all permissions again: 0.3 s for a handful of rows.
    TransactionTestCase._fixture_teardown = lambda _test: empty_tables()  # type: ignore[attr-defined]  # Django's own


@pytest.fixture
def another(transactional_db: None) -> Iterator[Any]:
    """A second session of the test's PostgreSQL database, beside Django's own."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite has one lock for all tables")
    settings = connection.get_connection_params()
    wanted = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: settings[name] for name in wanted}) as session:
        yield session
        session.rollback()


@pytest.fixture
def fleet(db: None) -> "Fleet":
    """An organization with a worker that can start, and no request counted by any throttle yet."""
    from tests.support.calls import fresh_fleet  # noqa: PLC0415  # the models must be loaded before

    return fresh_fleet()


@pytest.fixture(autouse=True)
def fresh_process() -> Iterator[None]:
    """No test is refused for what another one did to the database, or how often it called."""
    from environments import times  # noqa: PLC0415  # the models must be loaded before
    from environments.connections.asking import VERIFYING, WATCHING  # noqa: PLC0415  # as above
    from environments.limits import counts  # noqa: PLC0415  # as above

    yield
    times.forget()
    circuit.close()
    counts.forget()
    VERIFYING.forget()
    WATCHING.forget()
    bulkhead.places.clear()
