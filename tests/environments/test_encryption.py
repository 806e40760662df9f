import base64
import copy
import dataclasses
import json
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from environments.encryption import (
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    CannotOpenError,
    Key,
    KeyRing,
    KeyRingError,
    Place,
    Secret,
    decode,
    encode,
    generate_key,
    key_entry,
    sealing_key_id,
)

pytestmark = pytest.mark.once

PLACE = Place("acme", "environments_temporalconnection", "4ad5a1c8-0000-4000-8000-000000000001", "sealed_api_key")
KEY = generate_key("dk-1")
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
storable_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)


# --- Sealing ---------------------------------------------------------------------------------------------------------


@given(storable_text)
def test_opens_what_it_sealed(plain: str) -> None:
    assert KEY.open(KEY.seal(Secret(plain), PLACE), PLACE) == Secret(plain)


def test_a_sealed_text_has_the_documented_form() -> None:
    version, key_id, payload = KEY.seal(Secret("twelve chars"), PLACE).split(".")
    assert (version, key_id) == ("cp1", "dk-1")
    assert len(decode(payload)) == NONCE_BYTES + len("twelve chars") + TAG_BYTES


def test_a_sealed_text_does_not_contain_the_plain_text() -> None:
    sealed = KEY.seal(Secret("plain-text-of-the-secret"), PLACE)
    assert b"plain" not in decode(sealed.split(".")[2])


def test_the_same_secret_never_seals_to_the_same_text() -> None:
    assert len({KEY.seal(Secret("same"), PLACE) for _ in range(200)}) == 200


@pytest.mark.parametrize("field", Place._fields)
def test_does_not_open_at_another_place(field: str) -> None:
    sealed = KEY.seal(Secret("secret"), PLACE)
    moved = PLACE._replace(**{field: getattr(PLACE, field) + "x"})
    with pytest.raises(CannotOpenError):
        KEY.open(sealed, moved)


@given(st.lists(storable_text, min_size=4, max_size=4), st.lists(storable_text, min_size=4, max_size=4))
def test_opens_at_one_place_only(one: list[str], other: list[str]) -> None:
    sealed = KEY.seal(Secret("secret"), Place(*one))
    if one == other:
        assert KEY.open(sealed, Place(*other)) == Secret("secret")
    else:
        with pytest.raises(CannotOpenError):
            KEY.open(sealed, Place(*other))


def test_the_parts_of_a_place_cannot_flow_into_each_other() -> None:
    sealed = KEY.seal(Secret("secret"), Place("ab", "c", "d", "e"))
    with pytest.raises(CannotOpenError):
        KEY.open(sealed, Place("a", "bc", "d", "e"))


def test_the_key_id_is_bound_into_the_text() -> None:
    renamed = Key("dk-2", KEY.material)
    sealed = KEY.seal(Secret("secret"), PLACE)
    with pytest.raises(CannotOpenError):
        renamed.open(sealed.replace("cp1.dk-1.", "cp1.dk-2."), PLACE)


def test_does_not_open_with_another_key_of_the_same_id() -> None:
    with pytest.raises(CannotOpenError):
        generate_key("dk-1").open(KEY.seal(Secret("secret"), PLACE), PLACE)


def test_refuses_a_text_that_names_another_key() -> None:
    with pytest.raises(CannotOpenError, match="was tried with key dk-2"):
        generate_key("dk-2").open(KEY.seal(Secret("secret"), PLACE), PLACE)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_altered_byte_opens(position: int, change: int) -> None:
    payload = bytearray(decode(KEY.seal(Secret("a secret of some length"), PLACE).split(".")[2]))
    payload[position % len(payload)] ^= change
    with pytest.raises(CannotOpenError):
        KEY.open(f"cp1.dk-1.{encode(bytes(payload))}", PLACE)


def test_no_altered_character_opens_whatever_it_becomes() -> None:
    sealed = KEY.seal(Secret("s"), PLACE)
    for position in range(len(sealed)):
        for character in f"{ALPHABET}.=\n é\0":
            altered = sealed[:position] + character + sealed[position + 1 :]
            if altered != sealed:
                with pytest.raises(CannotOpenError):
                    KEY.open(altered, PLACE)


def test_no_truncated_or_extended_text_opens() -> None:
    sealed = KEY.seal(Secret("secret"), PLACE)
    for text in [
        *(sealed[:end] for end in range(len(sealed))),
        *(sealed + end for end in ("A", "=", "==", ".", "\n", " ")),
    ]:
        with pytest.raises(CannotOpenError):
            KEY.open(text, PLACE)


def test_refuses_the_other_spellings_of_the_same_bytes() -> None:
    sealed = KEY.seal(Secret("x"), PLACE)  # 29 bytes: the last character has bits that mean nothing
    respelled = [sealed[:-1] + last for last in ALPHABET if _loosely(sealed[:-1] + last) == _loosely(sealed)]
    respelled.remove(sealed)
    assert respelled, "no other spelling was found: this test would check nothing"
    for spelling in (*respelled, sealed + "=", sealed + "\n"):
        with pytest.raises(CannotOpenError, match="damaged"):
            KEY.open(spelling, PLACE)


def _loosely(sealed: str) -> bytes:
    payload = sealed.split(".")[2]
    return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a secret in plain text",
        "cp1",
        "cp1.",
        "cp1..",
        "cp1.dk-1",
        "cp1.dk-1.",
        "cp1.dk-1.AAAA",
        "cp2.dk-1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "CP1.dk-1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        " cp1.dk-1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "cp1.dk 1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "cp1.dk-1.AAAA.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_whatever_lacks_the_form_is_an_error_and_never_plain_text(text: str) -> None:
    with pytest.raises(CannotOpenError):
        KEY.open(text, PLACE)


def test_the_error_names_key_table_and_row_but_not_the_payload() -> None:
    sealed = KEY.seal(Secret("secret"), PLACE)
    with pytest.raises(CannotOpenError) as caught:
        KEY.open(sealed, PLACE._replace(field="other"))
    assert "dk-1" in str(caught.value)
    assert PLACE.table in str(caught.value)
    assert PLACE.row in str(caught.value)
    assert sealed.split(".")[2] not in str(caught.value)


@given(st.binary(max_size=200))
def test_base64url_round_trips(data: bytes) -> None:
    assert decode(encode(data)) == data


@given(st.text(max_size=80))
def test_decoding_gives_bytes_of_that_one_spelling_or_value_error(text: str) -> None:
    try:
        data = decode(text)
    except ValueError:
        return
    assert encode(data) == text


# --- Key ring --------------------------------------------------------------------------------------------------------

GOOD = encode(b"k" * KEY_BYTES)
OTHER = encode(b"o" * KEY_BYTES)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "each entry"),
        ("   ", "each entry"),
        ("no-colon", "each entry"),
        (f"one:{GOOD},", "each entry"),
        (f":{GOOD}", "key id"),
        (f"with.dot:{GOOD}", "key id"),
        (f"schlüssel:{GOOD}", "key id"),
        (f"{'x' * 65}:{GOOD}", "key id"),
        (f"one:{encode(b'k' * 31)}", "31 bytes"),
        (f"one:{encode(b'k' * 33)}", "33 bytes"),
        ("one:", "0 bytes"),
        (f"one:{GOOD}=x", "not base64url"),
        (f"one:{GOOD[:-1]}!", "not base64url"),
        (f"one:{GOOD[:-1]}é", "not base64url"),
        (f"one:{GOOD[:-1]}{ALPHABET[ALPHABET.index(GOOD[-1]) + 1]}", "not base64url"),
        (f"one:{GOOD},one:{OTHER}", "once"),
        (f"one:{GOOD},two:{GOOD}", "once"),
    ],
)
def test_refuses_a_malformed_ring_without_showing_keys(text: str, reason: str) -> None:
    with pytest.raises(KeyRingError, match=reason) as caught:
        KeyRing.parse(text)
    assert GOOD[:-1] not in str(caught.value)


@pytest.mark.parametrize("separator", [",", ", ", "\n", " ", "\t", "\r\n"])
def test_the_first_key_is_active_and_the_others_are_there(separator: str) -> None:
    ring = KeyRing.parse(f"\n new:{GOOD}{separator}old:{OTHER}\n")
    assert ring.active.id == "new"
    assert list(ring) == ["new", "old"]
    assert ring["old"].material == b"o" * KEY_BYTES


def test_a_key_in_plain_base64_is_the_same_key() -> None:
    material = bytes(range(200, 200 + KEY_BYTES))
    plain = base64.b64encode(material).decode()
    assert {"+", "/", "="} <= set(plain)
    assert KeyRing.parse(f"one:{plain}")["one"].material == KeyRing.parse(f"one:{encode(material)}")["one"].material


def test_an_empty_ring_is_refused() -> None:
    with pytest.raises(KeyRingError):
        KeyRing([])


def test_a_ring_opens_what_any_of_its_keys_wrapped() -> None:
    old, new, data_key = generate_key("old"), generate_key("new"), generate_key("dk-1")
    wrapped = old.seal_key(data_key, PLACE)
    assert KeyRing([new, old]).open_key(wrapped, PLACE, "dk-1").material == data_key.material
    with pytest.raises(CannotOpenError, match=r"old.*not in the key ring"):
        KeyRing([new]).open_key(wrapped, PLACE, "dk-1")


def test_an_unknown_key_id_is_named() -> None:
    sealed = generate_key("lost-key").seal_key(KEY, PLACE)
    with pytest.raises(CannotOpenError) as caught:
        KeyRing([KEY]).open_key(sealed, PLACE, "dk-1")
    assert caught.value.key_id == "lost-key"
    assert sealing_key_id(sealed, PLACE) == "lost-key"


def test_an_entry_parses_back_to_its_key() -> None:
    assert KeyRing.parse(key_entry(KEY))["dk-1"].material == KEY.material


def test_neither_key_nor_ring_shows_its_material_or_can_be_pickled() -> None:
    ring = KeyRing([KEY])
    assert repr(KEY) == "<Key dk-1>"
    assert repr(ring) == "<KeyRing dk-1>"
    for thing in (KEY, ring):
        with pytest.raises(TypeError):
            pickle.dumps(thing)
        with pytest.raises(TypeError):
            copy.deepcopy(thing)


# --- Fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_is_the_same_for_the_same_secret_under_one_key_and_differs_under_another() -> None:
    first, second = generate_key("dk-1"), generate_key("dk-2")
    assert first.fingerprint(Secret("a")) == first.fingerprint(Secret("a"))
    assert first.fingerprint(Secret("a")) != first.fingerprint(Secret("b"))
    assert first.fingerprint(Secret("a")) != second.fingerprint(Secret("a"))
    assert len(first.fingerprint(Secret("a"))) == 12


# --- Secret ----------------------------------------------------------------------------------------------------------

PLAIN = "the-plain-text"


@dataclasses.dataclass
class Holder:
    secret: Secret


LEAKS: dict[str, Callable[[Any], object]] = {
    "str": str,
    "format": "{}".format,
    "f-string": lambda secret: f"{secret}",
    "f-string with width": lambda secret: f"{secret:>10}",
    "percent": lambda secret: "%s" % secret,  # noqa: UP031
    "json": json.dumps,
    "json within": lambda secret: json.dumps({"a": secret}),
    "pickle": pickle.dumps,
    "pickle protocol 0": lambda secret: pickle.dumps(secret, 0),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "asdict": lambda secret: dataclasses.asdict(Holder(secret)),
    "hash": hash,
    "vars": vars,
    "bytes": bytes,
    "list": list,
    "len": len,
    "concatenation": lambda secret: secret + "",
}


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_secret_refuses_whatever_would_turn_it_into_something_else(leak: Callable[[Secret], object]) -> None:
    with pytest.raises(TypeError) as caught:
        leak(Secret(PLAIN))
    assert PLAIN not in str(caught.value)


SHOWS: dict[str, Callable[[Any], str]] = {
    "repr": repr,
    "ascii": ascii,
    "format": "{!r}".format,
    "f-string": lambda secret: f"{secret!r}",
    "within a list": lambda secret: repr({"a": [secret]}),
    "within a dataclass": lambda secret: repr(Holder(secret)),
}


@pytest.mark.parametrize("show", SHOWS.values(), ids=SHOWS)
def test_a_secret_shows_as_stars(show: Callable[[Secret], str]) -> None:
    assert "***" in show(Secret(PLAIN))
    assert PLAIN not in show(Secret(PLAIN))


def test_a_secret_in_a_log_call_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("tests").info("configuration %r", {"key": Secret(PLAIN)})
    assert "***" in caplog.text
    assert PLAIN not in caplog.text


def test_secrets_compare_by_value_and_only_with_secrets() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert bool(Secret("a"))
    assert not Secret("")


def test_reveal_is_the_one_way_out() -> None:
    assert Secret(PLAIN).reveal() == PLAIN
