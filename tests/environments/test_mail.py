"""Mail: what the server is told, and that one which is down, slow or refuses holds nobody up for long."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.conf import settings

from controlplane.startup.mail import mail_server as from_settings
from environments import mail
from environments.mail import MailServer
from tests.support.endpoints import Authority, dripping, silent
from tests.support.mail import Mailbox, mail_server, refusing, taking_and_silent

pytestmark = pytest.mark.once

TO, SUBJECT, TEXT = "bob@example.com", "Hello", "A link: http://127.0.0.1/#secret\n"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(mail, "PATIENCE", 0.5)
    return 0.5


@contextmanager
def sending_to(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("EMAIL_URL", url)
    monkeypatch.setattr(settings, "MAIL_SERVER", from_settings())
    yield
    for thread in threading.enumerate():
        if thread.name == "mail":
            thread.join(5)
            assert not thread.is_alive()


def test_a_mail_is_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox()
    with mail_server(box.handle) as url, sending_to(url.replace("//", "//ada:sesame%40@"), monkeypatch):
        assert mail.is_configured()
        assert mail.send(TO, SUBJECT, TEXT)
    (sent,) = box.mails
    assert "To: bob@example.com" in sent
    assert "From: controlplane@example.com" in sent
    assert "http://127.0.0.1/#secret" in sent
    assert any(command.startswith("AUTH PLAIN") for command in box.commands)
    assert "MAIL FROM:<controlplane@example.com>" in " ".join(box.commands).upper().replace(
        "CONTROLPLANE@EXAMPLE.COM", "controlplane@example.com"
    )


def test_no_mail_is_sent_unless_a_server_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MAIL_SERVER", None)
    assert not mail.is_configured()
    assert not mail.send(TO, SUBJECT, TEXT)


@pytest.mark.parametrize(
    ("handler", "outcome"),
    [
        (silent, mail.Outcome.UNCERTAIN),
        (refusing, mail.Outcome.REFUSED),
        (dripping(b"220-"), mail.Outcome.UNCERTAIN),
        (lambda _: None, mail.Outcome.UNCERTAIN),
        (taking_and_silent, mail.Outcome.UNCERTAIN),
    ],
)
def test_a_server_that_does_not_take_it_is_given_up_in_time(
    handler: object,
    outcome: mail.Outcome,
    monkeypatch: pytest.MonkeyPatch,
    patience: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    with mail_server(handler) as url, sending_to(url, monkeypatch):  # type: ignore[arg-type]
        assert mail.send(TO, SUBJECT, TEXT) is outcome
        assert time.monotonic() - began < patience + 1
    assert ("mail was not sent" if outcome is mail.Outcome.REFUSED else "not certain that mail was sent") in caplog.text
    assert not any(text in caplog.text for text in (TO, "secret", "sesame"))


def test_a_server_that_is_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with sending_to("smtp://127.0.0.1:9?from=controlplane@example.com", monkeypatch):
        assert mail.send(TO, SUBJECT, TEXT) is mail.Outcome.REFUSED


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
@pytest.mark.parametrize("is_from_the_start", [True, False])
def test_the_certificate_is_checked(
    name: str, is_from_the_start: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    monkeypatch.setattr(MailServer, "is_local", False)
    tls = authority.context_for(name)
    box = Mailbox(None if is_from_the_start else tls)
    with (
        mail_server(box.handle, tls if is_from_the_start else None) as url,
        sending_to(url.replace("//", "//ada:sesame@"), monkeypatch),
    ):
        assert bool(mail.send(TO, SUBJECT, TEXT)) is (name == "127.0.0.1")
    assert len(box.mails) == (name == "127.0.0.1")


def test_beyond_this_machine_nothing_is_sent_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    box = Mailbox()
    monkeypatch.setattr(MailServer, "is_local", False)
    with mail_server(box.handle) as url, sending_to(url, monkeypatch):
        assert not mail.send(TO, SUBJECT, TEXT)
    assert box.mails == []


def test_one_thread_of_a_process_sends_at_a_time(monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    with mail_server(silent) as url, sending_to(url, monkeypatch):
        first = threading.Thread(target=mail.send, args=(TO, SUBJECT, TEXT))
        first.start()
        time.sleep(0.1)
        began = time.monotonic()
        assert mail.send(TO, SUBJECT, TEXT) is mail.Outcome.BUSY
        assert time.monotonic() - began < 0.2, "whoever comes meanwhile is told so at once"
        first.join()
