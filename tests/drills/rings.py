"""Key rings in files, as NAME_FILE names them, and services that are restarted in turn to read them anew."""

import secrets
from http import HTTPStatus

from tests.drills.drill import say
from tests.drills.proxy import Proxy
from tests.drills.service import Service


class RingFile:
    """The key ring of one setting; processes that are started after a change know it."""

    def __init__(self, service: Service, name: str, prefix: str) -> None:
        self.prefix = prefix
        self._keys = dict([service.environ.pop(name).split(":")])
        self._path = service.directory / name
        service.environ[f"{name}_FILE"] = str(self._path)
        self._write()

    @property
    def active(self) -> str:
        """The id of the key that seals or signs."""
        return next(iter(self._keys))

    def append(self) -> None:
        """Adds a new key, which only opens and verifies for now."""
        self._keys[f"{self.prefix}-{secrets.token_hex(4)}"] = secrets.token_urlsafe(32)
        self._write()

    def activate_last(self) -> None:
        """Puts the newest key first."""
        key_id, material = self._keys.popitem()
        self._keys = {key_id: material, **self._keys}
        self._write()

    def keep_active(self) -> None:
        """Removes all keys but the active one."""
        self._keys = {self.active: self._keys[self.active]}
        self._write()

    def _write(self) -> None:
        self._path.touch(mode=0o600)
        self._path.write_text("\n".join(f"{key_id}:{material}" for key_id, material in self._keys.items()))


class Pair:
    """Two services of one control plane behind a proxy, so that one serves while the other is restarted."""

    def __init__(self, service: Service) -> None:
        self._services = (service, service.beside())
        for each in self._services:
            each.start()
        self.proxy = Proxy(*(each.port for each in self._services))

    def restart(self, reason: str) -> None:
        """One after the other: taken out of the proxy, stopped when it has answered, and put back when it is ready."""
        say(f"rolling restart: {reason}")
        for each in self._services:
            self.proxy.take_out(each.port)
            each.stop()
            each.start()
            each.process.wait_until(lambda each=each: each.status_of("/readyz") == HTTPStatus.OK)  # type: ignore[misc]
            self.proxy.put_in(each.port)

    def stop(self) -> None:
        for each in self._services:
            each.stop()
