"""Forged and twisted API keys, each made from a genuine one: the classic attacks by name.

What is signed here with the ring's own key stands for an attacker who has that key: "a leaked signing key alone cannot
forge", since the row decides.
"""

import base64
import hashlib
import json
import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from environments.encryption import Key, encode


@dataclass(frozen=True)
class Genuine:
    """A valid key, two others, and everything that an attacker might have got hold of beside them."""

    token: str
    #: Another one of the same organization, and one of another organization.
    other_token: str
    foreign_token: str
    signing_key: Key
    encryption_key: Key
    secret_key: str

    @property
    def header(self) -> dict[str, Any]:
        return members_of(self.token, 0)

    @property
    def claims(self) -> dict[str, Any]:
        return members_of(self.token, 1)


type Forge = Callable[[Genuine], str]


def members_of(token: str, part: int) -> dict[str, Any]:
    """What the header (0) or the payload (1) of a token says."""
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token.split(".")[part] + "=="))
    return found


def signed(key: Genuine, header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes) -> str:
    """Any header and payload, signed with HS256 and the ring's own key."""
    return signed_with(key.signing_key.material, header, claims)


def signed_with(material: bytes, header: dict[str, Any] | bytes, claims: dict[str, Any] | bytes) -> str:
    texts = [part if isinstance(part, bytes) else as_json(part) for part in (header, claims)]
    return sign_texts(material, encode(texts[0]), encode(texts[1]))


def sign_texts(material: bytes, header: str, payload: str) -> str:
    signature = jwt.get_algorithm_by_name("HS256").sign(f"{header}.{payload}".encode(), material)
    return f"{header}.{payload}.{encode(signature)}"


def as_json(members: dict[str, Any]) -> bytes:
    """As the product writes it, so that an unchanged token stays the same."""
    return json.dumps(members, separators=(",", ":")).encode()


def changed(members: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The members with others instead; `...` leaves one out."""
    return {name: value for name, value in (members | changes).items() if value is not ...}


def with_header(**changes: Any) -> Forge:
    return lambda key: signed(key, changed(key.header, changes), key.claims)


def with_kid(spell: Callable[[str], Any]) -> Forge:
    """The right signing key's id in another spelling."""
    return lambda key: signed(key, changed(key.header, {"kid": spell(key.signing_key.id)}), key.claims)


def with_claims(**changes: Any) -> Forge:
    return lambda key: signed(key, key.header, changed(key.claims, changes))


def with_payload(payload: bytes) -> Forge:
    return lambda key: signed(key, key.header, payload)


def with_more(member: bytes, *, part: int = 1) -> Forge:
    """With one more member at the end of the header (0) or the payload (1), as it is written."""

    def make(key: Genuine) -> str:
        texts = [as_json(key.header), as_json(key.claims)]
        texts[part] = texts[part][:-1] + b"," + member + b"}"
        return signed(key, texts[0], texts[1])

    return make


def unsigned(algorithm: str, signature: str = "") -> Forge:
    return lambda key: f"{encode(as_json(key.header | {'alg': algorithm}))}.{key.token.split('.')[1]}.{signature}"


def none_with_a_signature(key: Genuine) -> str:
    return unsigned("none", key.token.split(".")[2])(key)


def with_algorithm(algorithm: str) -> Forge:
    return lambda key: jwt.encode(
        key.claims, key.signing_key.material * 2, algorithm, headers=changed(key.header, {"alg": ...})
    )


def rs256(key: Genuine) -> str:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return jwt.encode(key.claims, pem, "RS256", headers=changed(key.header, {"alg": ...}))


def attackers_key_in_the_header(key: Genuine) -> str:
    jwk = {"kty": "oct", "k": encode(b"a" * 32), "alg": "HS256", "kid": key.signing_key.id}
    return signed_with(b"a" * 32, key.header | {"jwk": jwk, "jku": "http://127.0.0.1:1/keys"}, key.claims)


def padded_and_signed_so(key: Genuine) -> str:
    texts = []
    for part in (key.header, key.claims):
        spelled = [base64.urlsafe_b64encode(as_json(part) + b" " * spaces).decode() for spaces in range(3)]
        texts.append(next(text for text in spelled if "=" in text))
    return sign_texts(key.signing_key.material, *texts)


def with_other_trailing_bits(key: Genuine) -> str:
    """Of the 43 characters of a signature, the last one's 2 lowest bits mean nothing."""
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    last = alphabet.index(key.token[-1])
    return key.token[:-1] + alphabet[last + 1 if last % 4 < 3 else last - 1]


def with_subject(write: Callable[[UUID], Any]) -> Forge:
    """The key's own id in another spelling."""
    return lambda key: signed(key, key.header, key.claims | {"sub": write(UUID(key.claims["sub"]))})


def full_width(text: str) -> str:
    return text.translate({ord("0") + digit: 0xFF10 + digit for digit in range(10)})


TIMES = {
    "text": "9999999999",
    "float": 9999999999.0,
    "float with a fraction": 9999999999.5,
    "true": True,
    "huge": 10**30,
    "huge float": 1e300,
    "just beyond year 9999": 253402300800,
    "negative": -1,
    "null": None,
    "missing": ...,
    "list": [9999999999],
    "object": {},
    "empty text": "",
}
KIDS = {
    "missing": ...,
    "unknown": "acp-unknown",
    "null": None,
    "empty": "",
    "path": "../../../../dev/null",
    "file": "/dev/null",
    "sql": "acp-test1' OR '1'='1",
    "integer": 0,
    "true": True,
    "huge": "k" * 2_000,
    "lone surrogate": "\ud800",
    "url": "http://127.0.0.1:1/key",
}
#: Other spellings of the right key's id.
KID_SPELLINGS: dict[str, Callable[[str], Any]] = {
    "nul": lambda kid: f"{kid}\0",
    "newline": lambda kid: f"{kid}\n",
    "upper case": str.upper,
    "list": lambda kid: [kid],
    "object": lambda kid: {kid: 1},
}
#: By claim; `...` is without it.
ODD_CLAIMS: dict[str, tuple[Any, ...]] = {
    "iss": ("ACP", "evil", "", None, ["acp"], 1, ...),
    "aud": ("acp-admin", "", None, ["acp-worker"], ["acp-worker", "x"], {"acp-worker": 1}, 1, ...),
    "token_type": ("access", "", None, ["worker"], 1, ...),
    "sub": (1, 10**40, "", None, True, "1", [], {}, ..., "' OR 1=1 --", "../", "0" * 32),
    "org": (1, "", None, ["x"], {}, ..., "\0", "a\0b", "\ud800", "x" * 1_000, "' OR 1=1 --", "nobody", "é", "🦄"),
    "jti": (1, "", None, ["x"], ..., "changed"),
}
BESIDE_A_RIGHT_SIGNATURE = {
    "jku": "http://127.0.0.1:1/keys",
    "jwk": {"kty": "oct", "k": "AAAA"},
    "x5u": "http://127.0.0.1:1/cert",
    "x5c": ["AAAA"],
    "zip": "DEF",
    "cty": "JWT",
}

OF_THE_HEADER: dict[str, Forge] = {
    **{f"alg {name} without signature": unsigned(name) for name in ("none", "None", "NONE", "nOnE", "HS256", "")},
    "alg none with a signature": none_with_a_signature,
    "alg HS384": with_algorithm("HS384"),
    "alg HS512": with_algorithm("HS512"),
    "alg RS256": rs256,
    "alg RS256 over an HS256 signature": with_header(alg="RS256"),
    **{
        f"alg {value!r}": with_header(alg=value)
        for value in ("hs256", "HS256 ", "none", "", None, 256, True, ["HS256"], {"HS256": 1}, ...)
    },
    **{f"kid {name}": with_header(kid=value) for name, value in KIDS.items()},
    **{f"kid {name}": with_kid(spell) for name, spell in KID_SPELLINGS.items()},
    "kid the encryption ring's": lambda key: with_header(kid=key.encryption_key.id)(key),
    **{f"typ {value!r}": with_header(typ=value) for value in ("jwt", "JWS", "", None, 1, ["JWT"], ...)},
    "crit": with_header(crit=["exp"]),
    "crit empty": with_header(crit=[]),
    "crit null": with_header(crit=None),
    "crit b64": with_header(crit=["b64"], b64=False),
    "crit b64 true": with_header(crit=["b64"], b64=True),  # the one that PyJWT itself would take
    "b64 false": with_header(b64=False),
    "jwk of the attacker": attackers_key_in_the_header,
    **{
        f"{name} beside a right signature": with_header(**{name: value})
        for name, value in BESIDE_A_RIGHT_SIGNATURE.items()
    },
    "duplicate key in the header": with_more(b'"alg":"HS256"', part=0),
    "header list": lambda key: signed(key, b"[]", key.claims),
    "header text": lambda key: signed(key, b'"alg"', key.claims),
    "header no JSON": lambda key: signed(key, b"alg", key.claims),
    "header deep": lambda key: signed(key, b'{"a":' * 500, key.claims),
}
OF_THE_SIGNATURE: dict[str, Forge] = {
    "signed with an empty key": lambda key: signed_with(b"", key.header, key.claims),
    "signed with the key's id": lambda key: signed_with(key.signing_key.id.encode(), key.header, key.claims),
    "signed with SECRET_KEY": lambda key: signed_with(key.secret_key.encode(), key.header, key.claims),
    "signed with an encryption key": lambda key: signed_with(key.encryption_key.material, key.header, key.claims),
    "signed with the key in base64": lambda key: signed_with(
        encode(key.signing_key.material).encode(), key.header, key.claims
    ),
    "no signature": lambda key: key.token.rpartition(".")[0] + ".",
    "signature of another token": lambda key: f"{key.token.rpartition('.')[0]}.{key.other_token.rpartition('.')[2]}",
}
OF_THE_PAYLOAD: dict[str, Forge] = {
    **{
        f"{name} {kind}": with_claims(**{name: value})
        for name in ("exp", "iat", "nbf")
        for kind, value in TIMES.items()
    },
    "exp NaN": with_claims(exp=float("nan")),
    "exp past": with_claims(exp=1),
    "exp zero": with_claims(exp=0),
    "exp false": with_claims(exp=False),
    "nbf future": with_claims(nbf=253402300799),
    "iat future": with_claims(iat=253402300799),
    **{
        f"{name} {value!r}"[:60]: with_claims(**{name: value})
        for name, values in ODD_CLAIMS.items()
        for value in values
    },
    "sub in upper case": with_subject(lambda key_id: str(key_id).upper()),
    "sub with braces": with_subject(lambda key_id: f"{{{key_id}}}"),
    "sub as urn": with_subject(lambda key_id: f"urn:uuid:{key_id}"),
    "sub without dashes": with_subject(lambda key_id: key_id.hex),
    "sub as integer": with_subject(lambda key_id: key_id.int),
    "sub with a newline": with_subject(lambda key_id: f"{key_id}\n"),
    "sub in full-width digits": with_subject(lambda key_id: full_width(str(key_id))),
    "sub of no row": with_claims(sub=str(uuid4())),
    "sub of another row": lambda key: with_claims(sub=members_of(key.other_token, 1)["sub"])(key),
    "org of another tenant": lambda key: with_claims(org=members_of(key.foreign_token, 1)["org"])(key),
    "another claim": with_claims(scope="organization"),
    "duplicate key in the payload": with_more(b'"org":"other"'),
    "duplicate key by escape": with_more(b'"\\u006frg":"other"'),
    "duplicate key further down": with_more(b'"x":{"a":1,"a":2}'),
    "payload list": with_payload(b"[]"),
    "payload text": with_payload(b'"sub"'),
    "payload null": with_payload(b"null"),
    "payload empty": with_payload(b"{}"),
    "payload no JSON": with_payload(b"{"),
    "payload not UTF-8": with_payload(b'{"a":"\xff"}'),
    "payload UTF-16": lambda key: signed(key, key.header, json.dumps(key.claims).encode("utf-16")),
    "payload with BOM": lambda key: signed(key, key.header, b"\xef\xbb\xbf" + as_json(key.claims)),
    "payload deep": with_payload(b"[" * 2_000),
    "payload deep within": with_more(b'"x":' + b"[" * 700 + b"]" * 700),
    "payload with a long integer": with_more(b'"x":' + b"9" * 2_000),
    "beyond 4 KiB": with_claims(x="x" * 4_096),
}
OF_THE_TEXT: dict[str, Forge] = {
    "padded": lambda key: f"{key.token}=",
    "padded and signed so": padded_and_signed_so,
    "other trailing bits": with_other_trailing_bits,
    "standard base64 alphabet": lambda key: key.token.replace("-", "+").replace("_", "/") + "+",
    "trailing dot": lambda key: f"{key.token}.",
    "leading dot": lambda key: f".{key.token}",
    "two parts": lambda key: key.token.rpartition(".")[0],
    "four parts": lambda key: f"{key.token}.AAAA",
    "five parts": lambda key: f"{key.token}.AAAA.AAAA",
    "non-ASCII letter": lambda key: f"{key.token}\u00e9",
    "quoted": lambda key: f'"{key.token}"',
    "newline behind": lambda key: f"{key.token}\n",
    "newline within": lambda key: key.token.replace(".", "\n.", 1),
    "tab within": lambda key: key.token.replace(".", "\t.", 1),
    "NUL behind": lambda key: f"{key.token}\0",
    "two keys by comma": lambda key: f"{key.token},{key.token}",
    "percent-encoded": lambda key: key.token.replace(".", "%2E"),
    "the hash": lambda key: hashlib.sha256(key.token.encode()).hexdigest(),
    "the row's id": lambda key: str(key.claims["sub"]),
    "words": lambda _key: "not-a-token",
    "dots": lambda _key: "..",
    "null": lambda _key: "null",
    "64 KiB": lambda _key: "A" * 65_536,
    "64 KiB of dots": lambda _key: "." * 65_536,
}
#: All classic attacks by name.
FORGERIES = OF_THE_HEADER | OF_THE_SIGNATURE | OF_THE_PAYLOAD | OF_THE_TEXT
