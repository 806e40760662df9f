import functools
import json
import time
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest
from django.http import UnreadablePostError
from django.test import RequestFactory
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import UnsupportedMediaType

from controlplane.api import parsers
from controlplane.api.parsers import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_INTEGER_DIGITS,
    MAX_KEY_LENGTH,
    MAX_STRING_LENGTH,
    MAX_VALUES,
    BodyTooLargeError,
    InvalidBodyError,
    parse_body,
    parse_json,
)
from tests.support.odd_values import odd_values
from tests.support.quick import examples
from workers.models.instances import CUT

pytestmark = pytest.mark.once

texts = st.text(max_size=20)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**308) + 1, 10**308 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5), max_leaves=50
)


def storable(text: str) -> str:
    return "".join(
        "\ufffd" if character == "\0" or 0xD800 <= ord(character) <= 0xDFFF else character for character in text
    )


def cleaned(value: Any) -> Any:
    """What a value becomes: the rule of security.md, written a second time."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, list):
        return [cleaned(item) for item in value]
    if isinstance(value, dict):
        return {storable(key): cleaned(item) for key, item in value.items()}
    return value


def same(one: Any, other: Any) -> bool:
    """Equal in value and in type, down to the sign of zero."""
    return json.dumps(one) == json.dumps(other)


def test_the_limits_are_those_of_the_design() -> None:
    limits = (MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_KEY_LENGTH, MAX_STRING_LENGTH, MAX_INTEGER_DIGITS)
    assert limits == (64 * 1024, 32, 1_024, 512, 4_096, 308)


@given(json_values)
def test_any_json_within_the_limits_comes_through(value: Any) -> None:
    assert same(member(json.dumps(value).encode()), cleaned(value))


@given(json_values)
def test_any_json_comes_through_whatever_its_spelling(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    assert same(member(text.encode("utf-8", "replace")), cleaned(json.loads(text.encode("utf-8", "replace"))))


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf{}")
@example(b"-")
@example(b'"\\')
@example(b"[" * 10_000)
@example(b'{"":' * 10_000)
@example(b"]" * 10_000)
@example(b"9" * 10_000)
@example(b"-" + b"9" * 308 + b"e99999")
def test_any_bytes_give_a_value_or_the_parsers_own_error(body: bytes) -> None:
    for whole in (body, b'{"a":' + body + b"}", b'{"a":"' + body + b'"}'):
        try:
            value = parse_json(whole)
        except InvalidBodyError:
            continue
        if isinstance(value, dict):  # whatever else a body is, is refused for that
            json.dumps(value, allow_nan=False).encode()


@given(st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\u \ud800\0NIy', max_size=60))
def test_anything_like_json_gives_a_value_or_the_parsers_own_error(text: str) -> None:
    try:
        parse_json(text.encode("utf-8", "surrogatepass"))
    except InvalidBodyError as error:
        shape = error.as_validation_error()
        assert shape["loc"][0] == "body"
        assert all(isinstance(shape[name], str) and shape[name] for name in ("msg", "type"))
        with pytest.raises(ValueError):  # noqa: PT011  # json's own
            json.loads(text.encode("utf-8", "replace").decode())


@given(json_values, st.integers(0, 10_000))
def test_a_truncated_body_is_never_taken_for_the_whole(value: Any, cut: int) -> None:
    body = json.dumps({"a": value}).encode()
    with pytest.raises(InvalidBodyError):
        parse_json(body[: cut % len(body)])


# --- What is too much is cut, and it is said ---------------------------------------------------------------------------------


def member(value: bytes) -> Any:
    """What becomes of a member with this JSON value."""
    return parse_json(b'{"a":' + value + b"}")["a"]


def inner(value: bytes) -> Any:
    """What becomes of it within an object that is told of, with what that object says it lost."""
    told = member(b'{"b":' + value + b"}")
    return told["b"], told.get(CUT)


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return opening * depth + b"0" + closing * depth


#: What just fits, what does not, and what that becomes; the body, its member and the value count as one each.
LIMITS: dict[str, tuple[bytes, bytes, Any]] = {
    "depth of lists": (nested(30), nested(31), json.loads(nested(30).replace(b"0", b"null"))),
    "depth of objects": (nested(30, b'{"k":', b"}"), nested(31, b'{"k":', b"}"), None),
    "values": (b"[" + b"0," * 1_020 + b"0]", b"[" + b"0," * 1_021 + b"0]", [0] * 1_021),
    "key": (b'{"' + b"k" * 512 + b'":0}', b'{"' + b"k" * 513 + b'":0}', {"k" * 512: 0}),
    "text": (b'"' + b"x" * 4_096 + b'"', b'"' + b"x" * 4_097 + b'"', "x" * 4_096),
    "integer": (b"9" * 308, b"1" + b"0" * 308, None),
    "negative integer": (b"-" + b"9" * 308, b"-1" + b"0" * 308, None),
    "float": (b"1.7976931348623157e308", b"1.8e308", None),
    "key that is there twice": (b'{"c":0,"C":0}', b'{"c":0,"\\u0063":1}', {"c": 1}),
    "the note's own name": (b'{"_cuts":0}', b'{"_cut":["a lie"]}', {}),
}


@pytest.mark.parametrize(("fits", "exceeds", "expected"), LIMITS.values(), ids=LIMITS)
def test_each_limit_holds_to_the_letter_and_says_so(fits: bytes, exceeds: bytes, expected: Any) -> None:
    assert inner(fits) == (json.loads(fits), None)
    kept, lost = inner(exceeds)
    assert expected is None or kept == expected
    assert len(lost) == 1
    assert all(isinstance(text, str) and text for text in lost)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "-1e400", "9" * 5_000, f"{'9' * 400}.5"])
def test_numbers_that_cannot_be_kept_become_null(text: str) -> None:
    assert member(text.encode()) is None
    kept, lost = inner(b"[1," + text.encode() + b"]")
    assert kept == [1, None]
    assert lost == ["numbers that are not finite or too long"]


@pytest.mark.parametrize("depth", [32, 64, 65, 128, 500, 30_000, 200_000])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"k":', b"}"), (b'[{"[":', b"}]")])
def test_any_depth_is_cut(depth: int, opening: bytes, closing: bytes) -> None:
    kept, lost = inner(nested(depth, opening, closing))
    assert depth_of(kept) == MAX_DEPTH - 2
    assert lost == ["what is nested deeper than 32"]


def depth_of(value: Any) -> int:
    depth = 0
    while isinstance(value, (dict, list)):
        depth += 1
        value = next(iter(value.values() if isinstance(value, dict) else value), None)
    return depth


@pytest.mark.parametrize("wrong", [b"x", b"[}", b"", b"{]", b'"', b"01", b'{"k" 1}'])
@pytest.mark.parametrize("depth", [10, 64, 100, 1_000, 30_000])
def test_what_is_no_json_is_refused_at_any_depth(depth: int, wrong: bytes) -> None:
    for body in (nested(depth).replace(b"0", b"0," + wrong), nested(depth)[:-1] + wrong, nested(depth) + wrong + b"]"):
        with pytest.raises(InvalidBodyError):
            member(body)


def test_texts_with_brackets_and_quotes_are_read_in_linear_time() -> None:
    for text in ('"' + r"\"[[" * 200_000, '"' + r"\\[{" * 200_000 + '"', "[" * 600 + '"' * 300_001, r'"\"' * 200_001):
        began = time.perf_counter()
        with suppress(InvalidBodyError):
            member(text.encode())
        assert time.perf_counter() - began < 5


def test_what_is_nearest_stays_when_there_is_too_much() -> None:
    told = json.dumps({"env": {f"v{n}": "x" for n in range(5_000)}, "deep": [[[0] * 900]], "hostname": "w", "pid": 7})
    kept = member(told.encode())
    assert (kept["hostname"], kept["pid"]) == ("w", 7)
    assert count_of(kept) - 1 - len(kept[CUT]) <= MAX_VALUES - 1
    assert kept[CUT] == ["values beyond 1,024"]


def count_of(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(count_of, inside))


def test_of_a_list_that_is_a_member_itself_the_last_items_stay() -> None:
    assert member(json.dumps(list(range(3_000))).encode()) == list(range(1_976, 3_000))
    lines = [{"level": "info", "text": f"line {n}", "more": {"a": [1, 2]}} for n in range(900)]
    assert member(json.dumps(lines).encode()) == lines


def test_a_member_that_is_there_twice_is_null() -> None:
    assert parse_json(b'{"a":1,"b":{},"a":2,"b":{"c":1},"d":3}') == {"a": None, "b": None, "d": 3}


def test_bytes_that_are_not_utf_8_are_replaced_within_texts_alone() -> None:
    assert member(b'"caf\xe9 \xed\xa0\x80 \xf0\x9f"') == "caf\ufffd \ufffd\ufffd\ufffd \ufffd"
    for body in (b"\xe9{}", b"{\xe9}", b'{"a":\xe9}', b"{}\xe9"):
        with pytest.raises(InvalidBodyError):
            parse_json(body)


@given(odd_values, st.sampled_from([1, 300]))
@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
def test_whatever_is_told_is_kept_within_the_limits_and_what_is_lost_is_said(value: Any, times: int) -> None:
    told = {"b": [value] * times}
    kept = member(json.dumps(told).encode())
    lost = kept.pop(CUT, [])
    assert_storable(kept, MAX_DEPTH - 1)
    assert count_of(kept) <= MAX_VALUES - 1
    assert lost or same(kept, cleaned(json.loads(json.dumps(told))))


@pytest.mark.parametrize(
    "text", ["1", '"x"', "[]", "{}", "NaN", "1e999", "9" * 400, f'"{"k" * 600}"', '"caf\\u00e9"', '{"_cut":1}']
)
@pytest.mark.parametrize("form", ['{"m":%s}', '{"m":{"k":%s}}', '{"m":1,"m":%s}', '{"m":{"k":1,"k":%s}}', "[%s]", "%s"])
def test_a_plain_body_is_read_as_any_other(form: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse_json((form % text).encode())
    monkeypatch.setattr(parsers, "_is_plain", lambda *_: False)
    assert parse_json((form % text).encode()) == found


@given(st.dictionaries(st.text(), odd_values))
@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
def test_any_plain_body_is_read_as_any_other(value: dict[str, Any]) -> None:
    body = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with pytest.MonkeyPatch.context() as patch:
        found = parse_json(body)
        patch.setattr(parsers, "_is_plain", lambda *_: False)
        assert parse_json(body) == found


def assert_storable(value: Any, depth: int) -> None:
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    if isinstance(value, str):
        assert len(value) <= MAX_STRING_LENGTH
        assert "\0" not in value
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inside:
        assert depth > 0
        assert isinstance(key, int) or len(key) <= MAX_KEY_LENGTH
        assert_storable(item, depth - 1)


def test_the_error_never_holds_the_input() -> None:
    for body in (
        b'{"canary": canary}',
        b'"canary',
        b'"\\canary"',
        b"[" * 600 + b'{"canary"',
    ):
        with pytest.raises(InvalidBodyError) as caught:
            parse_json(body)
        assert "canary" not in str(caught.value.as_validation_error())


# --- Body: in the order media type, size, shape -------------------------------------------------------------------------------


def request(body: bytes = b"{}", content_type: str = "application/json", **environ: Any) -> Any:
    return RequestFactory().generic("POST", "/", body, content_type, **environ)


def unsized(body: bytes, content_type: str = "application/json", **environ: Any) -> Any:
    """As the server gives a body without a length: its input ends."""
    sent = {"wsgi.input": BytesIO(body), "wsgi.input_terminated": True, "CONTENT_LENGTH": "", **environ}
    return request(b"", content_type=content_type, CONTENT_TYPE=content_type, **sent)


CHUNKED = {"HTTP_TRANSFER_ENCODING": "chunked"}
FRAMINGS: dict[str, Any] = {
    "a length": request,
    "chunks": functools.partial(unsized, **CHUNKED),
    "chunks, in capitals": functools.partial(unsized, HTTP_TRANSFER_ENCODING="Chunked"),
    "chunks and a length": functools.partial(unsized, **CHUNKED | {"CONTENT_LENGTH": "1"}),
    "HTTP/2": unsized,
}
framings = pytest.mark.parametrize("framed", FRAMINGS.values(), ids=FRAMINGS)


@framings
def test_reads_a_body_however_it_is_framed(framed: Any) -> None:
    body = b'{"a":"' + b"x" * 4_096 + b'"}'
    assert parse_body(framed(body)) == json.loads(body)
    assert parse_body(framed(body), is_optional=True) == json.loads(body)


@framings
def test_the_media_type_comes_before_the_size_and_the_size_before_the_shape(framed: Any) -> None:
    large = b"x" * (MAX_BYTES + 1)
    with pytest.raises(UnsupportedMediaType):
        parse_body(framed(large, content_type="text/plain"))
    with pytest.raises(UnsupportedMediaType):
        parse_body(framed(large, HTTP_CONTENT_ENCODING="gzip"))
    with pytest.raises(BodyTooLargeError):
        parse_body(framed(large))
    with pytest.raises(BodyTooLargeError):
        parse_body(framed(b"{}"), limit=1)


@framings
def test_a_body_may_be_as_large_as_its_limit(framed: Any) -> None:
    assert parse_body(framed(b'{"a":1}'), limit=7) == {"a": 1}
    assert parse_body(framed(b"{}" + b" " * (MAX_BYTES - 2))) == {}


@framings
def test_what_is_sent_is_never_taken_for_nothing(framed: Any) -> None:
    for body in (b" ", b"x", b"{", b"null"):
        with suppress(InvalidBodyError):
            assert parse_body(framed(body), is_optional=True) is None
    with pytest.raises(UnsupportedMediaType):
        parse_body(framed(b"{}", content_type=""), is_optional=True)


def test_chunks_that_break_off_before_anything_arrived_are_no_absent_body() -> None:
    with pytest.raises(InvalidBodyError) as caught:
        parse_body(unsized(b"", **CHUNKED), is_optional=True)
    assert caught.value.kind == "missing"


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "xchunked", "chunked, chunked"])
def test_refuses_another_transfer_coding(coding: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_body(unsized(b"{}", HTTP_TRANSFER_ENCODING=coding))


@pytest.mark.parametrize("length", ["-1", "+2", "2 ", "0x2", "two", "2.0", "1e1", "\u0662", "2,2", "\u00b2"])
def test_refuses_a_length_that_is_no_number(length: str) -> None:
    with pytest.raises(UnreadablePostError):
        parse_body(request(CONTENT_LENGTH=length))


@pytest.mark.parametrize("length", ["65537", "9" * 30, "9" * 5_000, "0" * 10 + "65537"])
def test_refuses_by_the_declared_length_before_reading(length: str) -> None:
    with pytest.raises(BodyTooLargeError):
        parse_body(request(CONTENT_LENGTH=length))


@pytest.mark.parametrize("length", [3, 40])
def test_a_body_that_ends_before_its_length_is_refused(length: int) -> None:
    with pytest.raises(InvalidBodyError):
        parse_body(request(CONTENT_LENGTH=str(length), **{"wsgi.input": BytesIO(b"{}")}))


@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_no_body_at_all_is_missing_unless_it_is_optional(content_type: str) -> None:
    for nothing in (request(b"", CONTENT_TYPE=content_type), unsized(b"", content_type=content_type)):
        with pytest.raises(InvalidBodyError) as caught:
            parse_body(nothing)
        assert caught.value.kind == "missing"
        assert parse_body(nothing, is_optional=True) == {}


def test_the_compressed_form_may_be_named_identity() -> None:
    assert parse_body(request(HTTP_CONTENT_ENCODING="Identity")) == {}
