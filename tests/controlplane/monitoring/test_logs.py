import json
import logging

import pytest
from django.test import Client

from controlplane.monitoring.logs import JsonFormatter
from tests.support.calls import start
from tests.support.factories import Fleet

CANARY = "canary-that-no-log-may-hold"


def line(message: str, *args: object, **attributes: object) -> str:
    record = logging.LogRecord("a.logger", logging.WARNING, "file.py", 1, message, args, None)
    vars(record).update(attributes)
    return JsonFormatter().format(record)


def test_a_record_is_one_json_object_on_one_line() -> None:
    written = json.loads(line("hello %s", "you"))
    assert written.pop("time").endswith("+00:00")
    assert written == {"level": "WARNING", "logger": "a.logger", "message": "hello you"}


@pytest.mark.parametrize(
    "text", ["a\nb", "a\r\nb", '"}\n{"level": "INFO"', "\x1b[2J", "\0", "\u2028", "\u202e", "\ud800", "\x9b31m"]
)
def test_no_text_can_break_the_line_or_reach_the_terminal(text: str) -> None:
    written = line("%s", text)
    assert written.isascii()
    assert written.isprintable()
    assert json.loads(written)["message"] == text


def test_a_records_other_attributes_stay_out() -> None:
    assert CANARY not in line("hello", request=CANARY, headers={"Authorization": CANARY}, body=CANARY)


def test_an_exception_is_on_the_same_line() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        written = line("failed", exc_info=(type(error), error, error.__traceback__))
    assert "\n" not in written
    assert "ZeroDivisionError" in json.loads(written)["exception"]


def test_the_root_logger_writes_json() -> None:
    from django.conf import settings  # noqa: PLC0415  # the settings as loaded

    assert settings.LOGGING["root"]["handlers"] == ["stderr"]
    assert settings.LOGGING["formatters"]["json"]["()"] == "controlplane.monitoring.logs.JsonFormatter"
    assert settings.LOGGING["handlers"]["stderr"]["formatter"] == "json"


def test_no_request_leaves_its_body_headers_or_key_in_the_log(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("django.db.backends").setLevel(logging.INFO)
    body = {"system_info": {"a": CANARY}}
    start(fleet, body, HTTP_USER_AGENT=CANARY, HTTP_X_ANY=CANARY)
    start(fleet, body, token=f"{fleet.token[:-4]}AAAA", HTTP_COOKIE=f"a={CANARY}")
    start(fleet, body, worker_id="nonsense")
    start(fleet, f'{{"{CANARY}": '.encode())
    Client().get(f"/api/v1/nothing?token={CANARY}")
    written = caplog.text + "".join(capfd.readouterr())
    assert "API key refused" in written
    for secret in (CANARY, fleet.temporal_secret, fleet.litellm_secret, *fleet.token.split(".")[1:]):
        assert secret not in written
