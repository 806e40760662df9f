import json
import math
from typing import Any

import pytest
from django.test import RequestFactory
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.exceptions import UnsupportedMediaType

from controlplane.parsers import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_INTEGER_DIGITS,
    MAX_KEY_LENGTH,
    MAX_STRING_LENGTH,
    MAX_VALUES,
    BodyTooLargeError,
    InvalidBodyError,
    LengthRequiredError,
    parse_body,
    parse_json,
)

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
    assert same(parse_json(json.dumps(value).encode()), cleaned(value))


@given(json_values)
def test_any_json_comes_through_whatever_its_spelling(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=1)
    assert same(parse_json(text.encode("utf-8", "replace")), cleaned(json.loads(text.encode("utf-8", "replace"))))


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf{}")
@example(b"-")
@example(b'"\\')
@example(b"[" * 10_000)
@example(b'{"":' * 10_000)
@example(b"9" * 10_000)
@example(b"-" + b"9" * 308 + b"e99999")
def test_any_bytes_give_a_value_or_the_parsers_own_error(body: bytes) -> None:
    try:
        value = parse_json(body)
    except InvalidBodyError:
        return
    json.dumps(value, allow_nan=False).encode()


@given(st.text(alphabet='{}[]",:0123456789eE+-.truefalsn\\u \ud800\0NIy', max_size=60))
def test_anything_like_json_gives_a_value_or_the_parsers_own_error(text: str) -> None:
    try:
        value = parse_json(text.encode("utf-8", "surrogatepass"))
    except InvalidBodyError as error:
        shape = error.as_validation_error()
        assert shape["loc"][0] == "body"
        assert all(isinstance(shape[name], str) and shape[name] for name in ("msg", "type"))
        return
    assert same(value, cleaned(json.loads(text)))


@given(json_values, st.integers(0, 10_000))
def test_a_truncated_body_is_never_taken_for_the_whole(value: Any, cut: int) -> None:
    body = json.dumps({"a": value}).encode()
    with pytest.raises(InvalidBodyError):
        parse_json(body[: cut % len(body)])


@pytest.mark.parametrize(
    ("fits", "exceeds"),
    [
        (b"[" * 32 + b"]" * 32, b"[" * 33 + b"]" * 33),
        (b'{"a":' * 32 + b"1" + b"}" * 32, b'{"a":' * 33 + b"1" + b"}" * 33),
        (b"[" + b",".join([b"0"] * 1_023) + b"]", b"[" + b",".join([b"0"] * 1_024) + b"]"),
        (b'{"' + b"k" * 512 + b'":0}', b'{"' + b"k" * 513 + b'":0}'),
        (b'"' + b"x" * 4_096 + b'"', b'"' + b"x" * 4_097 + b'"'),
        (b"9" * 308, b"1" + b"0" * 308),
        (b"-" + b"9" * 308, b"-1" + b"0" * 308),
        (b"1.7976931348623157e308", b"1.8e308"),
        (b'{"a":0,"A":0}', b'{"a":0,"\\u0061":0}'),
    ],
    ids=[
        "depth of lists",
        "depth of objects",
        "values",
        "key",
        "text",
        "integer",
        "negative integer",
        "float",
        "duplicate key",
    ],
)
def test_each_limit_holds_to_the_letter(fits: bytes, exceeds: bytes) -> None:
    assert parse_json(fits) == json.loads(fits)
    with pytest.raises(InvalidBodyError):
        parse_json(exceeds)


LIMITS = {
    "keys": MAX_KEY_LENGTH,
    "texts": MAX_STRING_LENGTH,
    "digits": MAX_INTEGER_DIGITS,
    "depth": MAX_DEPTH,
    "values": MAX_VALUES,
}
#: Sizes on both sides of each limit.
sizes = {
    "keys": st.sampled_from([1, MAX_KEY_LENGTH, MAX_KEY_LENGTH + 1]),
    "texts": st.sampled_from([0, MAX_STRING_LENGTH, MAX_STRING_LENGTH + 1]),
    "digits": st.sampled_from([1, MAX_INTEGER_DIGITS, MAX_INTEGER_DIGITS + 1]),
    "depth": st.sampled_from([2, MAX_DEPTH, MAX_DEPTH + 1]),
    "values": st.sampled_from([100, MAX_VALUES, MAX_VALUES + 1]),
}


@given(st.fixed_dictionaries(sizes), st.randoms(use_true_random=False))
def test_a_body_comes_through_exactly_when_it_is_within_every_limit(size: dict[str, int], chance: Any) -> None:
    nested: Any = None
    for _ in range(size["depth"] - 1):
        nested = [nested]
    parts = [{"k" * size["keys"]: 0}, "x" * size["texts"], int("9" * size["digits"]), nested]
    # The outer list, the object and what it holds, text, number, the nested lists with null in them, and this list.
    parts.append([0] * (size["values"] - 6 - size["depth"]))
    chance.shuffle(parts)
    is_within = all(size[name] <= limit for name, limit in LIMITS.items())
    body = json.dumps(parts).encode()
    if is_within:
        assert same(parse_json(body), parts)
        return
    with pytest.raises(InvalidBodyError):
        parse_json(body)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", "[NaN]", '{"a":-1e400}'])
def test_numbers_are_finite(text: str) -> None:
    assert not math.isfinite(json.loads(text.strip('[]{}"a:')))
    with pytest.raises(InvalidBodyError) as caught:
        parse_json(text.encode())
    assert caught.value.kind == "finite_number"


def test_the_error_never_holds_the_input() -> None:
    for body in (
        b'{"canary": canary}',
        b'"canary',
        b'{"canary": 1, "canary": 2}',
        b'"\\canary"',
        b'{"' + b"canary" * 100 + b'":1}',
    ):
        with pytest.raises(InvalidBodyError) as caught:
            parse_json(body)
        assert "canary" not in str(caught.value.as_validation_error())


# --- Body: in the order media type, length, size ------------------------------------------------------------------------------


def request(body: bytes = b"{}", content_type: str = "application/json", **environ: Any) -> Any:
    return RequestFactory().generic("POST", "/", body, content_type, **environ)


def test_reads_a_body() -> None:
    assert parse_body(request(b'{"a":[1]}')) == {"a": [1]}


@pytest.mark.parametrize("environ", [{}, {"HTTP_TRANSFER_ENCODING": "chunked"}, {"CONTENT_LENGTH": "99999"}])
def test_the_media_type_comes_before_length_and_size(environ: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedMediaType):
        parse_body(request(content_type="text/plain", **environ))
    with pytest.raises(UnsupportedMediaType):
        parse_body(request(HTTP_CONTENT_ENCODING="gzip", **environ))


def test_the_length_comes_before_the_size() -> None:
    with pytest.raises(LengthRequiredError):
        parse_body(request(HTTP_TRANSFER_ENCODING="chunked", CONTENT_LENGTH="99999"))


def test_the_size_comes_before_the_shape() -> None:
    with pytest.raises(BodyTooLargeError):
        parse_body(request(b"x" * (MAX_BYTES + 1)))


@pytest.mark.parametrize("content_type", ["", "application/json"])
def test_no_body_at_all_is_missing(content_type: str) -> None:
    with pytest.raises(InvalidBodyError) as caught:
        parse_body(request(b"", CONTENT_TYPE=content_type))
    assert caught.value.kind == "missing"


def test_the_compressed_form_may_be_named_identity() -> None:
    assert parse_body(request(HTTP_CONTENT_ENCODING="Identity")) == {}
