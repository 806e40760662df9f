"""Arguments of the commands, checked so that a message never repeats what may be a key pasted in the wrong place."""

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from environments.models.fields import SLUG
from environments.times import parse_time
from workers.api_keys.issuing import LONGEST_LIFETIME
from workers.api_keys.tokens import UUID_TEXT

DAYS = re.compile(r"([0-9]{1,5})d", re.ASCII)


def row_id(text: str) -> UUID:
    """The id of a row."""
    if not UUID_TEXT.fullmatch(text.lower()):
        msg = "expected an id such as 6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
        raise ArgumentTypeError(msg)
    return UUID(text)


def organization_id(text: str) -> str:
    """The id of an organization."""
    if not re.match(SLUG, text):
        msg = "expected the id of an organization, such as acme"
        raise ArgumentTypeError(msg)
    return text


def lifetime_in_days(text: str) -> int:
    """A key's lifetime."""
    longest = LONGEST_LIFETIME.days
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(longest)) and 1 <= int(text) <= longest):
        msg = f"a key lives 1 to {longest} days"
        raise ArgumentTypeError(msg)
    return int(text)


def days(text: str) -> timedelta:
    """An age in days, such as 180d."""
    if not (match := DAYS.fullmatch(text)) or not int(match[1]):
        msg = "expected a number of days such as 180d, at least 1d"
        raise ArgumentTypeError(msg)
    return timedelta(days=int(match[1]))


def moment(text: str) -> datetime:
    """A time, absolute or so long ago."""
    try:
        return parse_time(text, timezone.now())
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from None


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """A count within limits."""

    def number(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most):
            msg = f"a whole number from {least} to {most:,} is needed"
            raise ArgumentTypeError(msg)
        return int(text)

    return number
