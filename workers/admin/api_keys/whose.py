"""Finds the API key in a text that somebody came across, such as a line of a log."""

import re
from typing import Any

from workers.api_keys.issuing import find_by_token
from workers.api_keys.tokens import MAX_TOKEN_BYTES, TOKEN
from workers.models import ApiKey

#: What a key is made of; a text is taken apart at all else.
WORD = re.compile(r"[A-Za-z0-9_.-]+", re.ASCII)
#: How many texts that look like keys are looked up.
MOST_CANDIDATES = 20


def key_in(text: str, keys: Any) -> ApiKey | None:
    """The first of the keys that the text has in it; others stay unknown, as if they were none of ours."""
    words = (word.strip(".") for word in WORD.findall(text))
    candidates = [word for word in words if len(word) <= MAX_TOKEN_BYTES and TOKEN.fullmatch(word)]
    for candidate in candidates[:MOST_CANDIDATES]:
        found = find_by_token(candidate)
        key: ApiKey | None = keys.filter(pk=found.pk).first() if found else None
        if key is not None:
            return key
    return None
