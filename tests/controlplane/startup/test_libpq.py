"""URLs of PostgreSQL that libpq reads, and of which it finds out only at a server that they cannot work."""

from pathlib import Path

import pytest

from controlplane.startup.libpq import MISTAKEN, UnusableUrlError, options_of

pytestmark = pytest.mark.once

#: What stands after the host and the name, or instead of them; and what is said.
UNUSABLE = {
    "h/d?sslmode=required": 'invalid sslmode value: "required".',
    "h/d?sslmode=": 'invalid sslmode value: "".',
    "h/d?target_session_attrs=primay": 'invalid target_session_attrs value: "primay".',
    "h/d?channel_binding=yes": 'invalid channel_binding value: "yes".',
    "h/d?require_auth=scram": 'invalid require_auth value: "scram".',
    "h/d?ssl_min_protocol_version=TLSv9": 'invalid "ssl_min_protocol_version" value: "TLSv9".',
    "h/d?gssencmode=x": 'invalid gssencmode value: "x".',
    "h/d?connect_timeout=3s": "connect_timeout is a whole number.",
    "h/d?keepalives_idle=a": "keepalives_idle is a whole number.",
    "h/d?sslmode=verify-full&sslrootcert=/no/such.pem": (
        "sslrootcert names a file that is not there or cannot be read: /no/such.pem."
    ),
    "h:99999/d": MISTAKEN,
    "h:port/d": MISTAKEN,
    "h1,h2/d?port=1,2,3": MISTAKEN,
    "hid@den@h/d": MISTAKEN,
}


@pytest.mark.parametrize(("rest", "reason"), UNUSABLE.items())
def test_what_cannot_work_with_any_server_is_refused(rest: str, reason: str) -> None:
    with pytest.raises(UnusableUrlError) as caught:
        options_of(f"postgresql://u:hidden@{rest}")
    assert str(caught.value) == reason


@pytest.mark.parametrize("password", ["hid/den", "hid@den", "12/34", "hid den"])
def test_a_password_that_is_not_encoded_is_not_shown(password: str) -> None:
    with pytest.raises(UnusableUrlError) as caught:
        options_of(f"postgresql://u:{password}@db.example.com/name")
    assert "den" not in str(caught.value)
    assert "34" not in str(caught.value)


@pytest.mark.parametrize(
    "rest",
    [
        *("/d", "h/d", "[::1]:5432/d", "h1:1,h2:2/d?target_session_attrs=read-write", "h/d?hostaddr=192.0.2.1"),
        *("/d?host=/run/postgresql", "h/d?sslmode=require&channel_binding=require", "h/d?sslmode=disable"),
        *(
            "h/d?sslmode=verify-full&sslrootcert=system",
            "h/d?connect_timeout=5&application_name=a%20b",
            "h,,h/d",
            "u:p?w@h/d",
            "h/d%40e",
        ),
    ],
)
def test_what_works_with_some_server_is_taken(rest: str) -> None:
    assert str(options_of(f"postgresql://{rest}")["dbname"]).startswith("d")


def test_a_file_of_authorities_that_is_there_is_taken(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    assert options_of(f"postgresql://h/d?sslrootcert={tmp_path}/ca.pem")["sslrootcert"] == f"{tmp_path}/ca.pem"
