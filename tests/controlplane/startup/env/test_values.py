"""Values, URLs and databases, read or refused by name."""

import ipaddress
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import env
from environments.endpoints.hosts import AllowedHost, is_loopback
from tests.support.env_values import NAME

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("TRUE", True),
        ("1", True),
        ("yes", True),
        ("on", True),
        ("false", False),
        ("0", False),
        ("no", False),
        ("off", False),
        ("", False),
    ],
)
def test_reads_a_boolean(monkeypatch: pytest.MonkeyPatch, text: str, value: bool) -> None:
    monkeypatch.setenv(NAME, text)
    assert env.boolean(NAME) is value


@pytest.mark.parametrize("text", ["maybe", "2", "tru", "nope", "True!"])
def test_refuses_what_is_no_boolean(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.boolean(NAME)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "1e3", "many", "+1", "１", "²", "0x10", ""])
def test_refuses_what_is_no_positive_integer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.positive_integer(NAME, 5)


def test_an_integer_has_a_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.positive_integer(NAME, 5) == 5
    monkeypatch.setenv(NAME, "7")
    assert env.positive_integer(NAME, 5) == 7


@pytest.mark.parametrize(
    "option", ["pgbouncer=true", "sslmode=require&pgbouncer=true", "connection_limit=5", "schema="]
)
def test_names_the_option_that_libpq_does_not_know(option: str) -> None:
    name = option.rpartition("&")[2].partition("=")[0]
    with pytest.raises(ImproperlyConfigured, match=f"DATABASE_URL.* {name}") as caught:
        env.database(f"postgresql://user:hidden@h/n?{option}")
    assert "hidden" not in str(caught.value)


def test_reads_words_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, " 10.0.0.0/8, ::1 ,")
    assert env.words(NAME) == ["10.0.0.0/8", "::1"]
    assert env.networks(NAME, "") == [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1")]


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.1/8", "10.0.0.0/33", "*"])
def test_refuses_what_is_no_network(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.networks(NAME, "")


def test_reads_the_hosts_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.connection_hosts(NAME) == ()
    monkeypatch.setenv(NAME, " temporal.internal:7233, *.example.com ,10.0.0.0/8,[::1]:4000,")
    assert env.connection_hosts(NAME) == (
        AllowedHost("temporal.internal", 7233),
        AllowedHost(".example.com", None),
        AllowedHost(ipaddress.ip_network("10.0.0.0/8"), None),
        AllowedHost(ipaddress.ip_network("::1"), 4000),
    )


@pytest.mark.parametrize("text", ["*", "a.example.com,http://b", "10.0.0.1/8", "a:0", "a:port", ",", "a b", "127.1"])
def test_refuses_what_is_no_host_of_a_connection(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(ImproperlyConfigured, match=NAME):
        env.connection_hosts(NAME)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_knows_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [None, "", "10.0.0.1", "0.0.0.0", "::", "localhost.evil.example.com", "127.0.0.1.evil.example.com"],  # noqa: S104
)
def test_knows_other_machines(host: str | None) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://controlplane.example.com", "https://controlplane.example.com"),
        ("https://controlplane.example.com/", "https://controlplane.example.com"),
        ("https://controlplane.example.com:8443//", "https://controlplane.example.com:8443"),
        ("https://controlplane.example.com.", "https://controlplane.example.com"),
        ("https://controlplane.example.com.:8443/", "https://controlplane.example.com:8443"),
        ("HTTPS://Controlplane.Example.COM", "https://controlplane.example.com"),
        ('"https://controlplane.example.com"', "https://controlplane.example.com"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("http://localhost/", "http://localhost"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_control_planes_url_is_told_without_a_trailing_slash(
    monkeypatch: pytest.MonkeyPatch, url: str, told: str
) -> None:
    monkeypatch.setenv("CONTROL_PLANE_URL", url)
    assert env.control_plane_url("http://127.0.0.1:8000") == told


@pytest.mark.parametrize(
    "url",
    [
        "http://controlplane.example.com",
        "http://10.0.0.1:8000",
        "http://0.0.0.0:8000",
        "http://localhost.evil.example.com",
        "ftp://127.0.0.1",
        "javascript:alert(1)",
        "controlplane.example.com",
        "//controlplane.example.com",
        "https://",
        "https://:8000",
        "https://a.example.com:port",
        "https://a.example.com:99999",
        "https://a.example.com?x=1",
        "https://a.example.com#x",
        "https://a.example.com/fleet",
        "https://a_b.example.com",
        "https://a b.example.com",
        "https://a.example.com,https://b.example.com",
        "https://user:hidden@a.example.com",
        "https://bücher.example.com",
        "https://a..example.com",
        "https://a.example.com:0",
        "https://127.1",
        "https://[::1",
        "words",
    ],
)
def test_refuses_another_control_plane_url(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CONTROL_PLANE_URL", url)
    with pytest.raises(ImproperlyConfigured, match="CONTROL_PLANE_URL") as caught:
        env.control_plane_url("http://127.0.0.1:8000")
    assert "hidden" not in str(caught.value)


def test_sqlite_is_set_up_for_concurrent_starts(tmp_path: Path) -> None:
    settings = env.database(f"sqlite:///{tmp_path}/deep/er/db.sqlite3")
    assert settings["NAME"] == tmp_path / "deep" / "er" / "db.sqlite3"
    assert (tmp_path / "deep" / "er").is_dir()
    options = settings["OPTIONS"]
    assert isinstance(options, dict)
    assert (options["transaction_mode"], options["timeout"]) == ("IMMEDIATE", 3)
    assert "journal_mode=WAL" in options["init_command"]
    assert "synchronous=FULL" in options["init_command"]


def test_postgresql_gets_its_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = env.database(
        "postgresql://user:p%40ss@db.example.com:5433/name?sslmode=require&options=-c%20search_path%3Dx"
    )
    assert (settings["NAME"], settings["USER"], settings["PASSWORD"]) == ("name", "user", "p@ss")
    assert (settings["HOST"], settings["PORT"]) == ("db.example.com", "5433")
    assert settings["CONN_HEALTH_CHECKS"] is True
    options = settings["OPTIONS"]
    assert isinstance(options, dict)
    assert (options["connect_timeout"], options["longest_answer"], options["sslmode"]) == (3, 3, "require")
    for limit in (
        "-c lock_timeout=2s",
        "-c statement_timeout=5s",
        "-c work_mem=16MB",
        "-c random_page_cost=1.1",
        "-c search_path=x",
    ):
        assert limit in options["options"]


@pytest.mark.parametrize("url", ["sqlite:///{}/db.sqlite3", "postgresql://user@db.example.com/name"])
def test_a_connection_outlives_a_request(url: str, tmp_path: Path) -> None:
    """Opening one costs as much as a heartbeat on SQLite, and more on PostgreSQL."""
    assert env.database(url.format(tmp_path))["CONN_MAX_AGE"] == 300


def test_commands_wait_longer_for_their_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_STATEMENT_TIMEOUT", "0")
    sqlite: Any = env.database(f"sqlite:///{tmp_path}/db.sqlite3")["OPTIONS"]
    assert sqlite["timeout"] == 20
    postgresql: Any = env.database("postgresql://db.example.com/name")["OPTIONS"]
    assert postgresql["longest_answer"] is None


def test_a_password_may_hold_what_looks_like_an_address() -> None:
    assert env.database("postgresql://user:p[ss@h/n")["PASSWORD"] == "p[ss"


def test_several_hosts_are_libpqs_to_choose_from() -> None:
    settings = env.database(
        "postgresql://user:hidden@db-1.example.com:5432,db-2.example.com:5433/name?target_session_attrs=read-write"
    )
    assert (settings["HOST"], settings["PORT"]) == ("db-1.example.com,db-2.example.com", "5432,5433")
    options = settings["OPTIONS"]
    assert isinstance(options, dict)
    assert options["target_session_attrs"] == "read-write"
    assert options["tcp_user_timeout"] == 10_000


def test_behind_a_pooler_nothing_is_left_on_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:hidden@pooler.example.com:6432/name"
    plain = env.database(url)
    monkeypatch.setenv("DATABASE_IS_POOLED", "true")
    pooled = env.database(url)
    assert isinstance(plain["OPTIONS"], dict)
    assert isinstance(pooled["OPTIONS"], dict)
    assert (plain["OPTIONS"]["prepare_threshold"], plain["DISABLE_SERVER_SIDE_CURSORS"]) == (2, False)
    assert (pooled["OPTIONS"]["prepare_threshold"], pooled["DISABLE_SERVER_SIDE_CURSORS"]) == (None, True)
    assert "options" in plain["OPTIONS"]
    assert "options" not in pooled["OPTIONS"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mysql://a/b",
        "sqlite://",
        "sqlite:///",
        "postgresql://host",
        "postgresql://user:hidden@host/",
        "postgresql://user:hidden@h/n?nonsense=1",
        "sqlite:///var/a.sqlite3?mode=ro",
        "sqlite:///var/a#b.sqlite3",
        "sqlite://var/a.sqlite3",
        "/path",
    ],
)
def test_refuses_another_database_without_showing_its_password(url: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="DATABASE_URL") as caught:
        env.database(url)
    assert "hidden" not in str(caught.value)
