"""Bodies with what is free in them: deep, long, many, odd numbers, odd text, keys told twice, wrong kinds, off clocks."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

#: The member in which the service says what it has cut; a client that sends one has it dropped.
CUT = "_cut"


@dataclass(frozen=True)
class Raw:
    """A value as it is written."""

    text: str


@dataclass(frozen=True)
class Members:
    """An object of which a key may be there twice."""

    pairs: tuple[tuple[str, Any], ...]


def written(value: Any) -> str:
    """The JSON of a value; lone surrogates as escapes, the rest as it is."""
    match value:
        case Raw():
            return value.text
        case Members() | dict():
            pairs = value.pairs if isinstance(value, Members) else value.items()
            return "{" + ", ".join(f"{written(key)}: {written(inner)}" for key, inner in pairs) + "}"
        case list():
            return "[" + ",".join(map(written, value)) + "]"
        case str():
            is_escaped = has_surrogates(value.replace(LATIN_1, "")) or (len(value) % 2 == 0 and LATIN_1 not in value)
            return json.dumps(value, ensure_ascii=is_escaped)
    return json.dumps(value)


def body_of(value: Any, chance: Random) -> bytes:
    """The same as a body, with blanks around it now and then."""
    around = chance.choice(["", "", "", "\n", " \t\r\n"])
    return f"{around}{written(value)}{around}".encode(errors="surrogateescape")


def has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def kept(text: str, limit: int) -> str:
    """What a reader of the rules expects of a text: it is cut, and what no database stores is replaced."""
    return "".join("\ufffd" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in text[:limit])


#: Text as it comes out of terminals, kernels and people.
TEXTS = (
    *(
        "",
        " ",
        "null",
        "0",
        "Zürich 東京 🛰️",
        "\u202egnp.exe",
        "a\u0301\u0302\u0303",
        "line\nbreak\r\n",
        "\x1b[31mred\x1b[0m",
    ),
    *(
        "<script>alert(1)</script>",
        "'; DROP TABLE workers_worker; --",
        "{{ 7*7 }}",
        "%s %d %(x)s",
        "\u2028\u2029\ufeff",
        "\x7f\x85",
    ),
    *("C:\\Users\\me", '"quoted"', "${jndi:ldap://x}", "../../etc/passwd", "\U0010ffff", "é" * 300),
)
#: Sent as the one byte 0xE9, as by programs that take Latin-1 for granted.
LATIN_1 = "\udce9"
#: What cannot be kept as it is.
UNSTORABLE_TEXTS = ("a\0b", "\0", "\ud800", "x\udfff\ud800y", f"caf{LATIN_1} au lait", "long " * 2_000)
NUMBERS = ("1e400", "-1e400", "9" * 400, "-" + "9" * 400, "NaN", "Infinity", "-Infinity")
WRONG_KINDS: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    "",
    "text",
    [],
    [1, [2]],
    {},
    {"a": {"b": None}},
    Raw("1e400"),
)

#: What goes beyond a limit, each with whether an object that holds it is to say that it lost something.
ODD: dict[str, Callable[[Random], Any]] = {
    "deep lists": lambda chance: Raw("[" * (depth := chance.choice([40, 600, 3_000])) + "]" * depth),
    "deep objects": lambda chance: Raw('{"a":' * (depth := chance.choice([40, 600, 3_000])) + "1" + "}" * depth),
    "many items": lambda chance: list(range(chance.choice([1_100, 5_000]))),
    "many members": lambda chance: {f"key-{number}": number for number in range(chance.choice([1_100, 3_000]))},
    "a long key": lambda chance: {"k" * chance.choice([513, 9_000]): 1},
    "a long text": lambda chance: "x" * chance.choice([4_097, 20_000]),
    "an odd number": lambda chance: Raw(chance.choice(NUMBERS)),
    "keys told twice": lambda _: Members((("a", 1), ("a", {"b": 2}))),
    "our own member": lambda _: {CUT: ["by the worker itself"], "b": 1},
}
#: What no limit is exceeded by; whether it is kept as it is, depends on the database's own numbers.
UNUSUAL: dict[str, Callable[[Random], Any]] = {
    "text that is not stored": lambda chance: chance.choice(UNSTORABLE_TEXTS[:-1]),
    "keys that are not stored": lambda _: Members((("a\0b", 1), ("\ud800", 2), ("\udfff", 3))),
    "numbers": lambda _: Raw("[-0, -0.0, 1E+2, 1e-400, 5e-324, 1.7976931348623157e308, " + "7" * 300 + "]"),
}


def tame(chance: Random) -> Any:
    """A value that is to be kept as it is."""
    kinds: list[Callable[[], Any]] = [
        lambda: chance.randrange(-(2**63), 2**63),
        chance.random,
        lambda: chance.choice(TEXTS),
        lambda: chance.choice([None, True, False]),
        lambda: [tame(chance) for _ in range(chance.randrange(3))],
        lambda: {chance.choice(["a", "b", "ü", "", "__proto__", "a.b", "$x"]): tame(chance)},
    ]
    return chance.choice(kinds)()


#: A clock that is off, as a machine without a battery or an eager one has it.
CLOCKS = ("1970-01-01T00:00:00Z", "2099-12-31T23:59:60+14:00", 0, -1, 4_102_444_800_000, "yesterday", None)


@dataclass(frozen=True)
class Told:
    """A free object as it is sent, and what of it has to be kept: all of it, or these members at least."""

    sent: Any
    expected: dict[str, Any]
    is_all: bool
    #: Whether it has to be said that something was lost.
    is_cut: bool = False

    def is_kept_in(self, found: Any) -> bool:
        """Whether that is what was kept of it."""
        if not isinstance(found, dict):
            return False
        if self.is_all:
            return same(found, self.expected)
        is_noted = not self.is_cut or bool(found.get(CUT))
        return is_noted and all(same(found.get(name), value) for name, value in self.expected.items())


def same(found: Any, expected: Any) -> bool:
    """Whether both are the same JSON value; a database may write a number in another way."""
    if isinstance(expected, float) and not isinstance(found, bool) and isinstance(found, (int, float)):
        return math.isclose(found, expected, rel_tol=1e-15)
    if isinstance(expected, dict) and isinstance(found, dict):
        return found.keys() == expected.keys() and all(same(found[name], value) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and bool(found == expected)


def free_object(chance: Random, **members: Any) -> Told:
    """An object with these members first and others, tame or odd ones."""
    if chance.random() < 0.2:
        members["time"] = chance.choice(CLOCKS)
    if chance.random() < 0.5:
        members[chance.choice(["labels", "gpu", "ключ"])] = tame(chance)
    expected = dict(members)
    kind = chance.choices(["tame", "unusual", "odd"], [6, 1, 2])[0]
    if kind == "tame":
        return Told(members, expected, is_all=True)
    expected = {name: value for name, value in expected.items() if not isinstance(value, (list, dict))}
    makers = ODD if kind == "odd" else UNUSUAL
    return Told(
        {**members, "odd": chance.choice(list(makers.values()))(chance)}, expected, is_all=False, is_cut=kind == "odd"
    )


def unknown_members(chance: Random) -> dict[str, Any]:
    """What the contract does not know: it is ignored."""
    names = ["timestamp", "id", "worker", "organization_id", "is_admin", "sequence", "", "ü"]
    if chance.random() < 0.7:
        return {}
    return {name: chance.choice([*CLOCKS, tame(chance), ODD["deep lists"](chance)]) for name in chance.sample(names, 2)}
