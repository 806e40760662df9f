"""Sealing of secrets with AES-256-GCM, a key ring and associated data; knows nothing of the database.

A sealed text is `cp1.<key id>.<base64url(nonce, ciphertext, tag)>` without padding. Its associated data names the place
it was made for, so a sealed text that is moved to another row, field, table or organization does not open.
"""

import base64
import binascii
import hmac
import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = "cp1"
KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
TO_BASE64URL = str.maketrans("+/", "-_")
KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: NIST SP 800-38D allows 2^32 seals under one key with random nonces; warn at half, refuse at nine tenths.
SEALS_TO_WARN_AT = 2**31
SEALS_TO_REFUSE_AT = 2**32 * 9 // 10


class Secret:
    """A secret on its way from storage to the one response that reveals it; cannot be printed, pickled or sent."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The plain text. Only this module, the serializers and the check of a connection call it; a test checks."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    def __str__(self) -> NoReturn:
        msg = "A Secret is not text: only a serializer reveals it."
        raise TypeError(msg)

    def __format__(self, _spec: str) -> str:
        return str(self)

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "A Secret cannot be pickled or copied."
        raise TypeError(msg)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash would let a secret become a dictionary key

    def __bool__(self) -> bool:
        return bool(self._value)


class Place(NamedTuple):
    """Where a sealed text belongs; all four are bound into it as associated data."""

    organization: str
    table: str
    row: str
    field: str


class CannotOpenError(Exception):
    """A sealed text does not open here; names the key id, table and row, never the payload."""

    def __init__(self, *, key_id: str, place: Place, reason: str) -> None:
        super().__init__(f"{place.table} row {place.row} field {place.field}, key {key_id}: {reason}")
        self.key_id = key_id
        self.place = place


class KeyRingError(ValueError):
    """A key ring is malformed; the message says how, without the keys."""


class Key:
    """One 256-bit key with its id: seals, opens, and makes fingerprints."""

    __slots__ = ("_aead", "id", "material")

    def __init__(self, key_id: str, material: bytes) -> None:
        if not KEY_ID.fullmatch(key_id):
            msg = "a key id has 1 to 64 letters, digits, '-' or '_'"
            raise KeyRingError(msg)
        if len(material) != KEY_BYTES:
            msg = f"key {key_id} has {len(material)} bytes; {KEY_BYTES} are needed"
            raise KeyRingError(msg)
        self.id = key_id
        self.material = material
        self._aead = AESGCM(material)

    def __repr__(self) -> str:
        return f"<Key {self.id}>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        msg = "A Key cannot be pickled or copied."
        raise TypeError(msg)

    def seal(self, secret: Secret, place: Place) -> str:
        """The secret sealed for this place under this key, with a fresh random nonce."""
        return self.seal_bytes(secret.reveal().encode(), place)

    def open(self, sealed: str, place: Place) -> Secret:
        """The secret that `seal` was given; CannotOpenError for anything else."""
        return Secret(self.open_bytes(sealed, place).decode())

    def seal_key(self, other: "Key", place: Place) -> str:
        """Another key wrapped for this place."""
        return self.seal_bytes(other.material, place)

    def open_key(self, sealed: str, place: Place, key_id: str) -> "Key":
        """The key that `seal_key` was given, under its own id."""
        return Key(key_id, self.open_bytes(sealed, place))

    def seal_bytes(self, plain: bytes, place: Place) -> str:
        nonce = os.urandom(NONCE_BYTES)
        return f"{VERSION}.{self.id}.{encode(nonce + self._aead.encrypt(nonce, plain, self._associated(place)))}"

    def open_bytes(self, sealed: str, place: Place) -> bytes:
        key_id, payload = split_sealed(sealed, place)
        if key_id != self.id:
            raise CannotOpenError(key_id=key_id, place=place, reason=f"was tried with key {self.id}")
        try:
            return self._aead.decrypt(payload[:NONCE_BYTES], payload[NONCE_BYTES:], self._associated(place))
        except InvalidTag:
            reason = "the key differs from the one it was sealed with, or the text was altered or moved"
            raise CannotOpenError(key_id=key_id, place=place, reason=reason) from None

    def fingerprint(self, secret: Secret) -> str:
        """12 hexadecimal digits that stand for the secret on a screen.

        Equal for equal secrets under one key, meaningless without the key, so that a stolen table of fingerprints tells
        nothing of weak secrets.
        """
        return hmac.digest(self.material, secret.reveal().encode(), "sha256").hex()[:12]

    def _associated(self, place: Place) -> bytes:
        parts = [part.encode() for part in (VERSION, self.id, *place)]
        return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


class KeyRing(Mapping[str, Key]):
    """Keys by id; the first is active (used for new seals and signatures), the others only open and verify."""

    def __init__(self, keys: list[Key]) -> None:
        if not keys:
            msg = "a key ring needs at least one key"
            raise KeyRingError(msg)
        self._keys = {key.id: key for key in keys}
        if len(self._keys) != len(keys) or len({key.material for key in keys}) != len(keys):
            msg = "a key ring names each key id and each key once"
            raise KeyRingError(msg)
        self.active = keys[0]

    @classmethod
    def parse(cls, text: str) -> "KeyRing":
        """A ring from `id:base64url` entries parted by commas or white space, 32 bytes each, the active one first.

        A key may be in plain base64 with its padding, too, as other programs make it.
        """
        keys = []
        for entry in re.split(r"[,\s]+", text.strip()):
            key_id, colon, encoded = entry.partition(":")
            if not colon:
                msg = "each entry of a key ring is <key id>:<base64url of 32 bytes>"
                raise KeyRingError(msg)
            try:
                keys.append(Key(key_id, decode(encoded.rstrip("=").translate(TO_BASE64URL))))
            except (ValueError, binascii.Error) as error:
                if isinstance(error, KeyRingError):
                    raise
                msg = f"key {key_id[:64]!r} is not base64url"
                raise KeyRingError(msg) from None
        return cls(keys)

    def __getitem__(self, key_id: str) -> Key:
        return self._keys[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<KeyRing {', '.join(self._keys)}>"

    def open_key(self, sealed: str, place: Place, key_id: str) -> Key:
        """A wrapped key opened by whichever key of the ring wrapped it."""
        wrapped_by = sealing_key_id(sealed, place)
        if wrapped_by not in self._keys:
            raise CannotOpenError(key_id=wrapped_by, place=place, reason="this key is not in the key ring")
        return self._keys[wrapped_by].open_key(sealed, place, key_id)


def generate_key(key_id: str) -> Key:
    """A new random key."""
    return Key(key_id, os.urandom(KEY_BYTES))


def key_entry(key: Key) -> str:
    """The key as an entry of a key ring, `<id>:<base64url>`: secret."""
    return f"{key.id}:{encode(key.material)}"


def sealing_key_id(sealed: str, place: Place) -> str:
    """The id of the key that a sealed text names."""
    return _parts_of(sealed, place)[0]


def _parts_of(sealed: str, place: Place) -> tuple[str, str]:
    """Key id and encoded payload; whatever lacks the form is an error, never taken for plain text."""
    version, _, rest = sealed.partition(".")
    key_id, _, encoded = rest.partition(".")
    if version != VERSION or not KEY_ID.fullmatch(key_id):
        raise CannotOpenError(key_id="?", place=place, reason="is not a sealed text")
    return key_id, encoded


def split_sealed(sealed: str, place: Place) -> tuple[str, bytes]:
    """Key id and payload of a sealed text."""
    key_id, encoded = _parts_of(sealed, place)
    try:
        payload = decode(encoded)
    except (ValueError, binascii.Error):
        raise CannotOpenError(key_id=key_id, place=place, reason="is damaged") from None
    if len(payload) < NONCE_BYTES + TAG_BYTES:
        raise CannotOpenError(key_id=key_id, place=place, reason="is cut short")
    return key_id, payload


def encode(data: bytes) -> str:
    """base64url without padding (RFC 4648, section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str) -> bytes:
    """The bytes of canonical base64url without padding; ValueError for any other spelling of the same bytes."""
    plain = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    data = binascii.a2b_base64(plain, strict_mode=True)
    whole = len(data) // 3  # threes of bytes, of whose digits each bit counts; what follows may leave some unused
    if "+" in text or "/" in text or encode(data[3 * whole :]) != text[4 * whole :]:
        msg = "not canonical base64url"
        raise ValueError(msg)
    return data
