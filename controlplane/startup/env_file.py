"""Reads the text of files that settings come from: the lines of `.env`, and what NAME_FILE names."""

import codecs
import re
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from django.core.exceptions import ImproperlyConfigured

from environments.regular_files import MAX_SECRET_BYTES, UnreadableFileError, read_regular

#: As people write it for shells, systemd, Docker and Python.
ASSIGNMENT = re.compile(r"(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(.*)")
#: The name in what is meant for one, in a comment too.
NAME = re.compile(r"[\s#]*(?:export\s+|set\s+)?([A-Za-z_][\w-]*)\s*[=:]")
#: How alike two names are, of which one is a slip of the other: a letter too few, two that changed places, an addition.
ALIKE = 0.85
QUOTED = re.compile(r"""(?:"((?:\\.|[^"\\])*)"|'([^']*)')(?:\s*#.*|\s+#.*)?""")
ESCAPED = re.compile(r'\\(["\\$`])')
ODD_QUOTES = tuple("“”„‟‘’‚«»`´")  # noqa: RUF001  # what they are mistaken for is the point


class UnreadableError(Exception):
    """A file is not there, or no text that a setting can be; the message says why and shows nothing of it."""


class Line(NamedTuple):
    """What a line of the file sets a variable to."""

    value: str
    number: int


def read(path: Path) -> str:
    """A small file's text, UTF-8 with or without its mark; UnreadableError for anything else, such as a pipe."""
    try:
        data = read_regular(path)
    except UnreadableFileError as error:
        raise UnreadableError(str(error)) from None
    if len(data) > MAX_SECRET_BYTES:
        msg = f"it has more than {MAX_SECRET_BYTES:,} bytes"
        raise UnreadableError(msg)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in data:
        msg = "line 1: it is UTF-16 or no text at all; save it as UTF-8"
        raise UnreadableError(msg)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        msg = f"line {line}: it is not text in UTF-8; save it as UTF-8"
        raise UnreadableError(msg) from None


def parse(text: str, path: Path) -> dict[str, Line]:
    """The variables that a file's lines set; a line that is not understood is named, not shown: it may be secret."""
    found: dict[str, Line] = {}
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        assignment = ASSIGNMENT.fullmatch(line)
        if not assignment:
            msg = f"{path}, line {number}: expected NAME=value"
            raise ImproperlyConfigured(msg)
        name = assignment[1]
        if name in found:
            msg = f"{path}, line {number}: {name} is set in line {found[name].number}, too: keep one of both"
            raise ImproperlyConfigured(msg)
        found[name] = Line(_value(assignment[2], f"{path}, line {number}: {name}"), number)
    return found


def line_about(path: Path, setting: str) -> int:
    """The number of the first line that names a setting, or seems to mean it; 0 for none, or no such file."""
    try:
        lines = read(path).splitlines()
    except UnreadableError:
        return 0
    return next((number for number, line in enumerate(lines, 1) if _is_about(line, setting)), 0)


def _is_about(line: str, setting: str) -> bool:
    if re.search(rf"\b{setting}(_FILE)?\b", line, re.IGNORECASE):
        return True
    named = NAME.match(line)
    return bool(named and SequenceMatcher(None, named[1].upper(), setting).ratio() > ALIKE)


def unquoted(text: str) -> str:
    """Without the pair of quotes around it, which Docker's --env-file takes for a part of the value."""
    text = text.strip().strip("\ufeff")
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" and text[0] not in text[1:-1]
    return text[1:-1].strip() if is_quoted else text


def _value(text: str, where: str) -> str:
    problem = ""
    if text.startswith(('"', "'")):
        if found := QUOTED.fullmatch(text):
            return found[2] if found[1] is None else ESCAPED.sub(r"\1", found[1])
        problem = "a quote is not closed, or something follows the closing one"
    elif text.startswith(ODD_QUOTES):
        problem = "these quotes are for print: write \" or ', or none"
    elif re.search(r"\s#", text):
        problem = "put the comment on a line of its own, or the value in quotes if # belongs to it"
    if problem:
        msg = f"{where}: {problem}"
        raise ImproperlyConfigured(msg)
    return text
