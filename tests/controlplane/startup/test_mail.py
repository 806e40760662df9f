"""EMAIL_URL: the server that mail is handed to, or why it cannot be one."""

from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured

from controlplane.startup.mail import mail_server
from environments.mail import MailServer

pytestmark = pytest.mark.once
FROM = "from=controlplane@example.com"


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("", None),
        (f"smtp://mail.example.com?{FROM}", MailServer("mail.example.com", 587, FROM[5:], is_tls=False)),
        (f"smtps://mail.example.com/?{FROM}", MailServer("mail.example.com", 465, FROM[5:], is_tls=True)),
        (
            f"smtp://ada:p%40ss%2F@mail.example.com:2525?{FROM}",
            MailServer("mail.example.com", 2525, FROM[5:], is_tls=False, username="ada", password="p@ss/"),
        ),
        (f"smtp://[::1]:25?{FROM}", MailServer("::1", 25, FROM[5:], is_tls=False)),
    ],
)
def test_reads_a_server(monkeypatch: pytest.MonkeyPatch, url: str, server: MailServer | None) -> None:
    monkeypatch.setenv("EMAIL_URL", url)
    assert mail_server() == server


def test_reads_it_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"smtp://ada:sesame@mail.example.com?{FROM}\n")
    monkeypatch.setenv("EMAIL_URL_FILE", str(tmp_path / "url"))
    server = mail_server()
    assert server
    assert server.password == "sesame"
    assert "sesame" not in repr(server)


@pytest.mark.parametrize(
    "url",
    [
        "mail.example.com",
        "http://mail.example.com?from=a@example.com",
        "smtp://?from=a@example.com",
        "smtp://mail.example.com",
        "smtp://mail.example.com?from=nobody",
        "smtp://mail.example.com?from=a@example.com&tls=no",
        "smtp://mail.example.com/path?from=a@example.com",
        "smtp://mail.example.com:70000?from=a@example.com",
        "smtp://mail.example.com:x?from=a@example.com",
        "smtp://ada@mail.example.com?from=a@example.com",
        "smtp://[::1?from=a@example.com",
        "smtp://ada:ses/ame@mail.example.com?from=a@example.com",
        "smtp://ada:sesame%0A@mail.example.com?from=a@example.com",
    ],
)
def test_refuses_what_is_none_and_shows_no_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("EMAIL_URL", url)
    with pytest.raises(ImproperlyConfigured, match="EMAIL_URL") as caught:
        mail_server()
    assert "ses" not in str(caught.value).replace("has both user", "")
