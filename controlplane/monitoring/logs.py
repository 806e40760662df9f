"""Logs as one JSON object a line, without bodies, headers or control characters."""

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

#: The id of the request that this thread is answering, "" outside of one.
request_id = ContextVar("request_id", default="")


# What no line tells is not found out for each.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging.logAsyncioTasks = False  # type: ignore[attr-defined]  # typeshed does not know it


class JsonFormatter(logging.Formatter):
    """Writes time, level, logger and message, the request's id, and `fields`, which our own code sets.

    A record's other attributes, such as a request, stay out. JSON escapes control characters, and everything beyond
    ASCII, so a line cannot be forged or reordered on a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if own_id := request_id.get():
            line["request_id"] = own_id
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class UnexpectedOnly(logging.Filter):
    """Lets through errors that have an exception: of answers as such `controlplane.requests` has a line already.

    A refusal that is made by an exception is no error. Django's own line has the path, and a path may hold anything.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return bool(record.exc_info) and record.levelno >= logging.ERROR
