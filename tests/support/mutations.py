"""Random changes of a genuine API key, small enough to pass for it: of its text, and of what it says, signed anew."""

import base64
import string
from random import Random

from environments.encryption import encode
from tests.support.forgeries import KIDS, ODD_CLAIMS, TIMES, Genuine, as_json, changed, signed


def mutated(text: str, other: str, chance: Random) -> str:
    """The text after one to three small changes of different kinds."""
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        text = _mutated_once(text, other, chance)
    return text


def _mutated_once(text: str, other: str, chance: Random) -> str:
    position = chance.randrange(len(text) or 1)
    end = min(len(text), position + chance.randrange(1, 9))
    before, within, after = text[:position], text[position:end], text[end:]
    changes = (
        lambda: before + chance.choice(string.printable + "é\0") + text[position + 1 :],
        lambda: before + chance.choice(string.printable) + within + after,
        lambda: before + after,
        lambda: before + within + within + after,
        lambda: before + within.swapcase() + after,
        lambda: _with_a_part_of(other, text, chance),
        lambda: _with_another_byte(text, chance),
    )
    return chance.choice(changes)()


def _with_a_part_of(other: str, text: str, chance: Random) -> str:
    parts, index = [*text.split("."), "", ""][:3], chance.randrange(3)
    parts[index] = other.split(".")[index]
    return ".".join(parts)


def _with_another_byte(text: str, chance: Random) -> str:
    """One bit of the decoded header or payload changed, the signature left as it is."""
    parts = text.split(".")
    index = chance.randrange(min(2, len(parts)))
    try:
        data = bytearray(base64.urlsafe_b64decode(parts[index] + "=="))
    except ValueError:
        return text
    parts[index] = encode(bytes(_flipped(data, chance)))
    return ".".join(parts)


def _flipped(data: bytearray, chance: Random) -> bytearray:
    if data:
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def mutated_and_signed(key: Genuine, chance: Random) -> str:
    """Header or payload after up to three changes, signed anew, so that more than the signature has to refuse it."""
    parts, index = [bytearray(as_json(key.header)), bytearray(as_json(key.claims))], chance.randrange(2)
    if chance.random() < 0.5:
        for _ in range(chance.randrange(1, 4)):
            _flipped(parts[index], chance)
    else:
        members = key.claims if index else key.header
        value = chance.choice([*TIMES.values(), *KIDS.values(), *sum(ODD_CLAIMS.values(), ())])
        parts[index] = bytearray(as_json(changed(members, {chance.choice([*members, "crit", "x"]): value})))
    return signed(key, bytes(parts[0]), bytes(parts[1]))
