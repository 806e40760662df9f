"""Bodies that the contract does not allow, or that only just fit: each asserts status, shape and what was recorded."""

import gzip
import json
import zlib
from typing import Any

import pytest

from tests.support.calls import assert_nothing_recorded, assert_refused, in_chunks, start
from tests.support.factories import Fleet
from tests.support.shared_fleet import *  # noqa: F403  # the fixtures
from workers.models import WorkerStart
from workers.models.instances import CUT

LIMIT = 64 * 1024
CANARY = "do-not-echo-me"


def info(value: bytes) -> bytes:
    """A body whose `system_info` has one member with this JSON value."""
    return b'{"system_info":{"a":' + value + b"}}"


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A body that is `depth` deep, the body and `system_info` included."""
    return info(opening * (depth - 2) + b"0" * (opening != b"[") + closing * (depth - 2))


def of_size(size: int) -> bytes:
    return info(b'"' + b"x" * 4_000 + b'"')[:-1].ljust(size - 1) + b"}"


def values(count: int) -> bytes:
    """A body with `count` JSON values in all: the body, `system_info`, the list and its numbers."""
    return info(b"[" + b",".join([b"1"] * (count - 3)) + b"]")


# --- 415: media type ---------------------------------------------------------------------------------------------------

MEDIA_TYPES = [
    "text/plain",
    "text/json",
    "application/x-json",
    "application/json5",
    "application/jsonx",
    "xapplication/json",
    "application/vnd.api+json",
    "application/merge-patch+json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/xml",
    "application/octet-stream",
    "*/*",
    "application/*",
    "application",
    "json",
    "application/json; charset=utf-7",
    "application/json; charset=utf-16",
    "application/json; charset=utf-32",
    "application/json; charset=latin-1",
    "application/json; charset=ascii",
    "application/json; charset=",
    "application/json; charset=utf-8; charset=utf-16",
    "application/json; charset=utf-8 utf-16",
    "application/json, text/plain",
    "application/json; version",
    'application/json; charset="utf-8',
    "application/json; a=b; charset=latin-1",
    "application/json; charset=utf-8; a=b; charset=utf-8",
    "text/plain; application/json",
    "application/json;\n charset=utf-16",
    "application/json\0",
    "application/js\u00f6n",
]


@pytest.mark.parametrize("content_type", MEDIA_TYPES)
def test_refuses_another_media_type(fleet: Fleet, content_type: str) -> None:
    assert_refused(start(fleet, content_type=content_type), 415)


def test_refuses_a_body_without_media_type(fleet: Fleet) -> None:
    assert_refused(start(fleet, content_type=""), 415)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "APPLICATION/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json ; charset=utf8",
        "application/json;",
        "application/json; version=1",
        "application/json; odata=verbose; charset=utf-8",
        'application/json; charset=utf-8; profile="https://example.com/x;y"; ',
    ],
)
def test_takes_json_in_utf_8(fleet: Fleet, content_type: str) -> None:
    assert start(fleet, content_type=content_type).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "compress", "GZIP", "identity, gzip", "x"])
def test_refuses_a_compressed_body(fleet: Fleet, encoding: str) -> None:
    for body in (gzip.compress(b"{}"), zlib.compress(b"{}"), b"{}"):
        assert_refused(start(fleet, body, HTTP_CONTENT_ENCODING=encoding), 415)


# --- Framing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["chunked", "Chunked"])
def test_takes_a_chunked_body(fleet: Fleet, coding: str) -> None:
    assert start(fleet, **in_chunks(b'{"system_info":{"a":1}}', coding)).status_code == 200
    assert WorkerStart.objects.get().system_info == {"a": 1}


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity"])
def test_refuses_another_transfer_coding(fleet: Fleet, coding: str) -> None:
    assert_refused(start(fleet, **in_chunks(b"{}", coding)), 415)


@pytest.mark.parametrize("length", ["-1", "+2", "2 ", "0x2", "two", "2.0", "1e1", "\u0662", "2,2", "\u00b2"])
def test_refuses_a_length_that_is_no_number(fleet: Fleet, length: str) -> None:
    assert_refused(start(fleet, CONTENT_LENGTH=length), 400)


# --- 413: size ---------------------------------------------------------------------------------------------------------


def test_takes_64_kib_and_not_one_byte_more(fleet: Fleet) -> None:
    assert len(of_size(LIMIT)) == LIMIT
    assert_refused(start(fleet, of_size(LIMIT + 1)), 413)
    assert start(fleet, of_size(LIMIT)).status_code == 200


@pytest.mark.parametrize("size", [LIMIT + 1, 1_000_000, 10_000_000])
def test_refuses_a_larger_body(fleet: Fleet, size: int) -> None:
    assert_refused(start(fleet, b" " * size), 413)


def test_refuses_a_larger_chunked_body(fleet: Fleet) -> None:
    assert_refused(start(fleet, **in_chunks(of_size(LIMIT + 1))), 413)
    assert start(fleet, **in_chunks(of_size(LIMIT))).status_code == 200


@pytest.mark.parametrize("length", ["65537", "9" * 30, "9" * 5_000, "0" * 10 + "65537"])
def test_refuses_by_the_declared_length_before_reading(fleet: Fleet, length: str) -> None:
    assert_refused(start(fleet, CONTENT_LENGTH=length), 413)


# --- 422: shape --------------------------------------------------------------------------------------------------------

INVALID: dict[str, bytes] = {
    "white space": b" \t\r\n",
    "no-break space": b"\xc2\xa0",
    "NUL": b"\0",
    "words": CANARY.encode(),
    "open brace": b"{",
    "open text": b'{"' + CANARY.encode(),
    "single quotes": b"{'system_info': {}}",
    "trailing comma": b'{"system_info": {},}',
    "comment": b"{} // " + CANARY.encode(),
    "two values": b"{} {}",
    "behind the value": b"{}" + CANARY.encode(),
    "unquoted key": b"{system_info: {}}",
    "escape": info(b'"\\x41"'),
    "half an escape": info(b'"\\u12"'),
    "raw newline in a text": info(b'"a\nb"'),
    "raw NUL in a text": info(b'"a\0b"'),
    "raw escape in a text": info(b'"a\x1bb"'),
    "leading zero": info(b"01"),
    "plus": info(b"+1"),
    "hexadecimal": info(b"0x10"),
    "dot alone": info(b"1."),
    "full-width digit": info("１".encode()),
    "undefined": info(b"undefined"),
    "True": info(b"True"),
    "form": b"system_info=1",
    "multipart": b'--x\r\nContent-Disposition: form-data; name="system_info"\r\n\r\n{}\r\n--x--\r\n',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"system_info":{}}'.encode("utf-16"),
    "UTF-16 without BOM": b"{\0}\0",
    "UTF-32": "{}".encode("utf-32"),
    "UTF-7": b"+AHs-+AH0-",
    "UTF-7 in a key": b'{"+AHM-ystem_info":{}',
    "gzip": gzip.compress(b"{}"),
    "list": b"[]",
    "list of objects": b'[{"system_info":{}}]',
    "text": b'"' + CANARY.encode() + b'"',
    "empty text": b'""',
    "number": b"5",
    "zero": b"0",
    "float": b"1.5",
    "true": b"true",
    "false": b"false",
    "null": b"null",
    "system_info null": b'{"system_info": null}',
    "system_info list": b'{"system_info": ["' + CANARY.encode() + b'"]}',
    "system_info empty list": b'{"system_info": []}',
    "system_info text": b'{"system_info": "' + CANARY.encode() + b'"}',
    "system_info empty text": b'{"system_info": ""}',
    "system_info JSON in a text": b'{"system_info": "{}"}',
    "system_info number": b'{"system_info": 5}',
    "system_info true": b'{"system_info": true}',
    "duplicate key": b'{"system_info": {}, "system_info": {}}',
    "60,000 deep": b"[" * 60_000,
    "60,000 deep objects": b'{"":' * 15_000,
}


@pytest.mark.parametrize("body", INVALID.values(), ids=INVALID)
def test_refuses_a_malformed_body_without_echoing_it(fleet: Fleet, body: bytes) -> None:
    response = start(fleet, body)
    assert_refused(response, 422)
    text = response.content.decode()
    assert CANARY not in text
    assert "999999" not in text
    assert "kkkk" not in text
    assert len(text) < 500


@pytest.mark.parametrize("content_type", ["application/json", ""])
def test_an_empty_body_is_422_since_the_contract_requires_one(fleet: Fleet, content_type: str) -> None:
    response = start(fleet, b"", CONTENT_TYPE=content_type, CONTENT_LENGTH="0")
    assert_refused(response, 422)
    assert response.json()["detail"] == [{"loc": ["body"], "msg": "Field required", "type": "missing"}]
    assert_refused(start(fleet, b"", CONTENT_TYPE=content_type), 422)


@pytest.mark.parametrize(
    ("body", "location", "kind"),
    [
        (b"[]", ["body"], "dict_type"),
        (b"null", ["body"], "dict_type"),
        (b'{"system_info": null}', ["body", "system_info"], None),
        (b'{"system_info": []}', ["body", "system_info"], "dict_type"),
        (b'{"system_info": "x"}', ["body", "system_info"], "dict_type"),
    ],
)
def test_tells_where_the_body_is_wrong(fleet: Fleet, body: bytes, location: list[str], kind: str | None) -> None:
    (error,) = start(fleet, body).json()["detail"]
    assert error["loc"] == location
    assert kind is None or error["type"] == kind


# --- What only just fits -----------------------------------------------------------------------------------------------


def recorded(fleet: Fleet, body: bytes) -> Any:
    """The `system_info` on record after a start that passed."""
    response = start(fleet, body)
    assert response.status_code == 200, response.content
    return WorkerStart.objects.get().system_info


FITS: dict[str, tuple[bytes, Any]] = {
    "an empty object": (b"{}", {}),
    "an empty system_info": (b'{"system_info": {}}', {}),
    "white space around": (b' \r\n\t{ "system_info" : { } } \n', {}),
    "unknown members": (b'{"worker_id": 1, "temporal_host": "evil", "is_disabled": false}', {}),
    "null within": (info(b"null"), {"a": None}),
    "true and false": (info(b"[true, false]"), {"a": [True, False]}),
    "integer of 308 digits": (info(b"9" * 308), {"a": int("9" * 308)}),
    "negative integer of 308 digits": (info(b"-" + b"9" * 308), {"a": -int("9" * 308)}),
    "the smallest float": (info(b"5e-324"), {"a": 5e-324}),
    "underflow": (info(b"1e-999"), {"a": 0.0}),
    "minus zero": (info(b"-0"), {"a": 0}),
    "32 deep": (nested(32), None),
    "32 deep, objects": (nested(32, b'{"a":', b"}"), None),
    "1,024 values": (values(1_024), {"a": [1] * 1_021}),
    "key of 512 characters": (info(b'{"' + b"k" * 512 + b'":1}'), {"a": {"k" * 512: 1}}),
    "key of 512 characters of 3 bytes": (info(b'{"' + "名".encode() * 512 + b'":1}'), {"a": {"名" * 512: 1}}),
    "empty key": (b'{"system_info": {"": 1}}', {"": 1}),
    "text of 4,096 characters": (info(b'"' + b"x" * 4_096 + b'"'), {"a": "x" * 4_096}),
    "text of 4,096 characters of 4 bytes": (info(b'"' + "🦄".encode() * 4_096 + b'"'), {"a": "🦄" * 4_096}),
    "a pair of surrogates": (info(b'"\\ud83e\\udd84"'), {"a": "🦄"}),
    "other control characters": (info(b'"\\u0001\\u001b\\u007f\\u2028"'), {"a": "\x01\x1b\x7f\u2028"}),
    "direction marks": (info('"\u202e\u2066"'.encode()), {"a": "\u202e\u2066"}),
    "markup": (info(b'"<script>alert(1)</script>"'), {"a": "<script>alert(1)</script>"}),
    "SQL": (info(b'"\'; DROP TABLE workers_worker; --"'), {"a": "'; DROP TABLE workers_worker; --"}),
    "percent": (info(b'"%s %(a)s {0}"'), {"a": "%s %(a)s {0}"}),
    "prototype": (
        b'{"system_info": {"__proto__": {"x": 1}, "constructor": 1}}',
        {"__proto__": {"x": 1}, "constructor": 1},
    ),
    "BOM within a text": (info('"\ufeff"'.encode()), {"a": "\ufeff"}),
    "noncharacter": (info('"\uffff"'.encode()), {"a": "\uffff"}),
    "NUL escaped": (info(b'"a\\u0000b"'), {"a": "a\ufffdb"}),
    "NUL in a key": (b'{"system_info": {"a\\u0000": 1}}', {"a\ufffd": 1}),
    "high surrogate": (info(b'"\\ud800"'), {"a": "\ufffd"}),
    "low surrogate": (info(b'"\\udfff"'), {"a": "\ufffd"}),
    "surrogates in the wrong order": (info(b'"\\udd84\\ud83e"'), {"a": "\ufffd\ufffd"}),
    "surrogate in a key": (b'{"system_info": {"\\ud800": 1}}', {"\ufffd": 1}),
    "surrogate deep within": (info(b'[[{"k": ["\\ud800"]}]]'), {"a": [[{"k": ["\ufffd"]}]]}),
    "surrogate outside of system_info": (b'{"\\ud800": "\\u0000"}', {}),
}


NUMBERS, VALUES = "numbers that are not finite or too long", "values beyond 1,024"
#: What is free in a body and too much, and what is recorded of it; None where only that it was cut.
FREE: dict[str, tuple[bytes, Any]] = {
    "latin-1": (info(b'"\xe9"'), {"a": "\ufffd"}),
    "overlong": (info(b'"\xc0\xaf"'), {"a": "\ufffd\ufffd"}),
    "encoded surrogate": (info(b'"\xed\xa0\x80"'), {"a": "\ufffd\ufffd\ufffd"}),
    "cut UTF-8": (info(b'"\xf0\x9f\xa6"'), {"a": "\ufffd"}),
    "beyond Unicode": (info(b'"\xf4\x90\x80\x80"'), {"a": "\ufffd\ufffd\ufffd\ufffd"}),
    "NaN": (info(b"NaN"), {"a": None, CUT: [NUMBERS]}),
    "Infinity": (info(b"Infinity"), {"a": None, CUT: [NUMBERS]}),
    "-Infinity": (info(b"-Infinity"), {"a": None, CUT: [NUMBERS]}),
    "1e999": (info(b"1e999"), {"a": None, CUT: [NUMBERS]}),
    "-1e999": (info(b"-1e999"), {"a": None, CUT: [NUMBERS]}),
    "1e309": (info(b"1e309"), {"a": None, CUT: [NUMBERS]}),
    "309 digits and a dot": (info(b"9" * 309 + b".0"), {"a": None, CUT: [NUMBERS]}),
    "integer of 309 digits": (info(b"9" * 309), {"a": None, CUT: [NUMBERS]}),
    "negative integer of 309 digits": (info(b"-" + b"9" * 309), {"a": None, CUT: [NUMBERS]}),
    "integer of 309 digits, the first a 1": (info(b"1" + b"0" * 308), {"a": None, CUT: [NUMBERS]}),
    "integer of 60,000 digits": (info(b"9" * 60_000), {"a": None, CUT: [NUMBERS]}),
    "NaN outside of system_info": (b'{"x": NaN}', {}),
    "duplicate key within": (info(b'{"k":1,"k":2}'), {"a": {"k": 2}, CUT: ["keys that were there twice"]}),
    "duplicate key by escape": (info(b'{"k":1,"\\u006b":2}'), {"a": {"k": 2}, CUT: ["keys that were there twice"]}),
    "duplicate unknown key": (b'{"x": 1, "x": 2}', {}),
    "33 deep, lists": (nested(33), None),
    "33 deep, objects": (nested(33, b'{"a":', b"}"), None),
    "33 deep outside of system_info": (b'{"x":' + b"[" * 32 + b"]" * 32 + b"}", {}),
    "500 deep": (nested(500), None),
    "3,000 deep": (nested(3_000), None),
    "1,025 values": (values(1_025), {"a": [1] * 1_021, CUT: [VALUES]}),
    "1,025 values in an object": (
        b'{"system_info":{' + b",".join(b'"%d":0' % n for n in range(1_023)) + b"}}",
        {str(n): 0 for n in range(1_022)} | {CUT: [VALUES]},
    ),
    "20,000 values": (info(b"[" + b",".join([b"1"] * 20_000) + b"]"), {"a": [1] * 1_021, CUT: [VALUES]}),
    "key of 513 characters": (
        info(b'{"' + b"k" * 513 + b'":1}'),
        {"a": {"k" * 512: 1}, CUT: ["keys beyond 512 characters"]},
    ),
    "top-level key of 513 characters": (b'{"' + b"k" * 513 + b'":1}', {}),
    "key of 513 characters of 3 bytes": (
        info(b'{"' + "名".encode() * 513 + b'":1}'),
        {"a": {"名" * 512: 1}, CUT: ["keys beyond 512 characters"]},
    ),
    "text of 4,097 characters": (
        info(b'"' + b"x" * 4_097 + b'"'),
        {"a": "x" * 4_096, CUT: ["texts beyond 4,096 characters"]},
    ),
    "text of 4,097 escapes": (
        info(b'"' + b"\\u0041" * 4_097 + b'"'),
        {"a": "A" * 4_096, CUT: ["texts beyond 4,096 characters"]},
    ),
    "text of 4,097 characters outside of system_info": (b'{"x":"' + b"x" * 4_097 + b'"}', {}),
}


@pytest.mark.parametrize(("body", "expected"), FREE.values(), ids=FREE)
def test_what_is_free_costs_no_worker_its_start_and_is_recorded_cut(fleet: Fleet, body: bytes, expected: Any) -> None:
    found = recorded(fleet, body)
    assert found == expected or (expected is None and found[CUT] == ["what is nested deeper than 32"])


@pytest.mark.parametrize(("body", "expected"), FITS.values(), ids=FITS)
def test_takes_and_records_what_fits(fleet: Fleet, body: bytes, expected: Any) -> None:
    found = recorded(fleet, body)
    assert found == (json.loads(body)["system_info"] if expected is None else expected)


def test_takes_the_largest_float(fleet: Fleet) -> None:
    """PostgreSQL gives it back as the whole number that it is."""
    assert float(recorded(fleet, info(b"1.7976931348623157e308"))["a"]) == pytest.approx(1.7976931348623157e308)


def test_members_that_become_equal_by_replacement_cost_no_worker_its_start(fleet: Fleet) -> None:
    found = recorded(fleet, b'{"system_info": {"\\u0000": "first", "\\ud800": "second", "b": 1}}')
    assert set(found) == {"\ufffd", "b"}


def test_unknown_members_change_nothing(fleet: Fleet) -> None:
    body = {
        "system_info": {},
        "worker_id": "x",
        "organization_id": "evil",
        "control_plane_url": "https://evil.example.com",
    }
    answer = start(fleet, body).json()
    assert answer["organization_id"] == fleet.organization.id
    assert answer["control_plane_url"] == "http://127.0.0.1:8000"


def test_what_a_worker_told_before_is_not_lost_when_it_sends_nonsense(fleet: Fleet) -> None:
    start(fleet, {"system_info": {"hostname": "a"}})
    assert start(fleet, b"nonsense").status_code == 422
    assert WorkerStart.objects.get().system_info == {"hostname": "a"}


def test_the_refusals_here_are_not_for_want_of_a_valid_request(fleet: Fleet) -> None:
    assert_nothing_recorded()
    assert start(fleet).status_code == 200
