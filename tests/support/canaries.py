"""Looks for secrets in what others wrote, in whatever way they may have written them."""

import base64
import json
from html import escape, unescape
from urllib.parse import quote, unquote_to_bytes

#: Of a secret, so many characters at either end are enough to be found: what shortens a text does not hide it.
END = 16
URL_SAFE = bytes.maketrans(b"+/", b"-_")


def spellings(secret: str | bytes) -> set[bytes]:
    """A secret as it is and as something else might have written it: base64 at each alignment, hexadecimal, escaped."""
    plain = secret.encode() if isinstance(secret, str) else secret
    found = {plain, plain[::-1], plain.hex().encode(), plain.hex().upper().encode(), quote(plain, safe="").encode()}
    if isinstance(secret, str):
        found |= {json.dumps(secret)[1:-1].encode(), escape(secret).encode()}
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + plain)
        # Only the characters that depend on the secret alone.
        inner = text[(4 * shift + 2) // 3 : (4 * (shift + len(plain))) // 3]
        found |= {inner, inner.translate(URL_SAFE)}
    return found


def spellings_of_ends(secret: str | bytes) -> set[bytes]:
    """The same of either end of a secret that is random throughout."""
    return spellings(secret[:END]) | spellings(secret[-END:])


def unescaped(content: bytes) -> bytes:
    """The content, and once more without the escapes of HTML, JSON and addresses where it has any."""
    if b"&" not in content and b"%" not in content and b"\\" not in content:
        return content
    text = unescape(content.decode(errors="replace")).replace("\\/", "/")
    return b"\n".join([content, unquote_to_bytes(text)])


def found_in(content: bytes, names_and_secrets: dict[str, set[bytes]]) -> set[str]:
    """The names of the secrets that are there."""
    return {name for name, ways in names_and_secrets.items() if any(way in content for way in ways)}
