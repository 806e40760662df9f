"""The file of generated secrets that quickstart starts from."""

import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from controlplane.startup import env, env_file
from environments.encryption import generate_key, key_entry

#: How each secret setting is made, by the kind that `manage.py generate_key` takes.
KINDS: dict[str, tuple[str, Callable[[], str]]] = {
    "secret": ("SECRET_KEY", lambda: secrets.token_urlsafe(48)),
    "encryption": ("ENCRYPTION_KEYS", lambda: key_entry(generate_key(f"ek-{secrets.token_hex(4)}"))),
    "signing": ("API_KEY_SIGNING_KEYS", lambda: key_entry(generate_key(f"acp-{secrets.token_hex(4)}"))),
}


def ensure() -> None:
    """Writes the file, for the owner's eyes only, with the secrets that neither it nor the environment has.

    Nothing that is there is ever changed: a lost key is a lost database.
    """
    env.load_env_file()
    missing = [(name, make()) for name, make in KINDS.values() if not env.text(name)]
    for kind, (name, _) in KINDS.items():
        if env.mention(name):  # with a value, or this refuses: a new key beside one that is not read would be a loss
            env.required(name, kind)
    if not missing:
        return
    path = env.env_file()
    try:
        _append(path, missing)
    except OSError as error:
        msg = f"{path} cannot be written ({error.strerror}): the keys that quickstart makes are kept there."
        raise ImproperlyConfigured(msg) from None


def keep_port() -> str:
    """Has the file tell the port that quickstart was given, so that later commands tell workers the same address.

    Where there is no file, the environment says everything. Returns what to do where it cannot be written, or "".
    """
    path, port = env.env_file(), os.environ.get("PORT")
    if not port or not path.exists():
        return ""
    line = env_file.parse(env_file.read(path), path).get("PORT")
    try:
        if line is None:
            _append(path, [("PORT", port)])
        elif line.value != port:
            _replace(path.resolve(), line.number, f"PORT={port}")
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): set PORT={port} for other commands, too."
    return ""


def _append(path: Path, settings: list[tuple[str, str]]) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        before = file.read()
        lines = [f"{name}={value}\n" for name, value in settings]
        if not before:
            lines.insert(
                0, "# Made by manage.py quickstart. Without these keys the database cannot be read: keep a copy.\n"
            )
        elif not before.endswith((b"\n", b"\r")):
            lines.insert(0, "\n")
        file.write("".join(lines).encode())
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, number: int, line: str) -> None:
    """Puts a line in the place of another one; whatever happens, the file has all its keys."""
    parts = re.split(rb"(\r\n|\r|\n)", path.read_bytes())
    parts[2 * (number - 1)] = line.encode()
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(b"".join(parts))
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def use_throwaway_secrets() -> None:
    """Takes new secrets for this process only, for commands that need none and run even where they are unusable."""
    for name, make in KINDS.values():
        os.environ.pop(f"{name}_FILE", None)
        os.environ[name] = make()
