"""What people do at the console with secrets: type them, mistype them, be shown them once."""

import hashlib
import hmac
import re
import secrets
import struct
import time
from base64 import b32decode
from html import unescape
from typing import Protocol

from tests.drills.mishaps import value_of
from tests.drills.service import Fleet
from tests.support.crawler import Console, Fields, fields_of

ROLES = ("viewer", "operator", "administrator")
API_KEY = re.compile(r'id="api-key"[^>]*>([^<]+)<')
SEED = re.compile(r'id="totp-key">(\w+)<')


class Planting(Protocol):
    """What knows which secrets there are."""

    told: list[tuple[bytes, str]]

    def plant(self, name: str, secret: str | bytes) -> None: ...

    def plant_key(self, name: str, api_key: str) -> None: ...

    def keep(self, place: str, *contents: str | bytes) -> None: ...


class Tour:
    """A superuser at the console, and the people that they let in."""

    def __init__(self, canaries: Planting, console: Console, database_url: str, fleet: Fleet) -> None:
        self.canaries = canaries
        self.console = console
        self.fleet = fleet
        self._url = database_url
        self._passwords: dict[str, str] = {}
        row = value_of(database_url, "SELECT id FROM environments_temporalconnection LIMIT 1")
        self.connection = f"/admin/environments/temporalconnection/{row}/change/"
        self.key = ""

    @property
    def pages(self) -> list[str]:
        """Where somebody would look for a secret."""
        return [
            "/admin/",
            self.connection,
            self.connection.replace("/change/", "/history/"),
            f"/admin/workers/worker/{self.fleet.worker_ids[0]}/change/",
            f"/admin/workers/worker/{self.fleet.worker_ids[0]}/boot/",
            self.key,
            "/admin/environments/auditevent/",
            "/admin/workers/workerstart/",
            "/admin/account/",
        ]

    def through_all(self) -> list[Console]:
        """Does everything, and returns the others' browsers."""
        people = [self._invite(role) for role in ROLES]
        self._change_the_connection()
        self._issue_a_key()
        self._make_a_worker()
        self._add_a_second_factor(people[0], self._passwords[ROLES[0]])
        self._mistype_a_password()
        selected = {"action": ["export"], "_selected_action": [self.fleet.worker_ids[0]], "select_across": ["1"]}
        self.canaries.keep("CSV", self.console.send("/admin/workers/worker/", self._signed(selected)))
        self.console.send("/admin/workers/apikey/whose/", self._signed({"text": [self.fleet.api_key]}))
        return people

    def _invite(self, role: str) -> Console:
        """Somebody with a role in the organization, signed in."""
        password = self._passwords[role] = self._secret(f"{role}'s password")
        typed = {"username": role, "password1": password, "password2": password, "usable_password": "true"}
        self.console.fill("/admin/auth/user/add/", "user_form", **typed)
        row = value_of(self._url, f"SELECT id FROM auth_user WHERE username = '{role}'")  # noqa: S608
        self.console.fill(f"/admin/auth/user/{row}/change/", "user_form", is_staff="on")
        own = {"organization": self.fleet.organization_id, "username": role, "role": role}
        self.console.fill("/admin/environments/membership/add/", "membership_form", **own)
        return Console(self.console.url, role, password)

    def _change_the_connection(self) -> None:
        """Types an API key into forms that are refused, tried, looked at before they are saved, and saved."""
        form, own = "temporalconnection_form", {"requires_api_key": "on"}
        self.console.fill(
            self.connection, form, host="no host", api_key=self._secret("API key typed with a wrong host")
        )
        fields = fields_of(self.console.get(self.connection), form)
        tried = {"host": ["127.0.0.1:9"], "api_key": [self._secret("API key that was verified")]}
        self.console.send(self.connection.replace("/change/", "/verify/typed/"), fields | tried)
        asked = self.console.fill(self.connection, form, api_key=self._secret("API key that was saved"), **own)
        self.console.send(self.connection, fields_of(asked, "confirm-change"))
        if value_of(self._url, "SELECT max(api_key_version) FROM environments_temporalconnection") != "2":
            message = "The connection's API key was not replaced."
            raise AssertionError(message)
        added = {"organization": self.fleet.organization_id, "name": "second", "api_url": "https://second.example.com"}
        added |= own | {"api_key": self._secret("API key of a new connection")}
        self.console.fill("/admin/environments/litellmconnection/add/", "litellmconnection_form", **added)

    def _issue_a_key(self) -> None:
        own = {"scope": "organization", "organization": self.fleet.organization_id, "name": "console", "days": "30"}
        asked = self.console.fill("/admin/workers/apikey/add/", "apikey_form", **own)
        issued = self.console.send("/admin/workers/apikey/add/", fields_of(asked, "confirm-organization"))
        self._key_shown_once("API key of the console", issued)
        row = value_of(self._url, "SELECT id FROM workers_apikey WHERE name = 'console'")
        self.key = f"/admin/workers/apikey/{row}/change/"
        rotate = self.key.replace("/change/", "/rotate/")
        self._key_shown_once(
            "API key that the console rotated", self.console.send(rotate, self._signed({"grace_hours": ["1"]}))
        )

    def _make_a_worker(self) -> None:
        queue = value_of(self._url, "SELECT id FROM workers_workerqueue LIMIT 1")
        own = {"queue": queue, "name": "made-at-the-console", "is_key_issued": "on", "days": "30"}
        self._key_shown_once(
            "API key of a new worker", self.console.fill("/admin/workers/worker/add/", "worker_form", **own)
        )

    def _add_a_second_factor(self, console: Console, password: str) -> None:
        """An authenticator app, whose seed is shown until it was proven that the app has it."""
        console.send("/admin/account/confirm/password/", self._signed({"password": [password]}, console))
        found = SEED.search(console.send("/admin/account/app/add/"))
        seed = found[1] if found else ""
        self._shown_once("seed of an authenticator app", seed, console)
        console.send("/admin/account/app/add/", self._signed({"code": ["000000"]}, console))
        self._shown_once("seed of an authenticator app", seed, console)
        console.send("/admin/account/app/add/", self._signed({"code": [code_of(seed)]}, console))
        if value_of(self._url, "SELECT count(*) FROM mfa_authenticator WHERE type = 'totp'") != "1":
            message = "The authenticator app was not added."
            raise AssertionError(message)

    def _mistype_a_password(self) -> None:
        stranger = Console(self.console.url)
        for username in ("root", "nobody"):
            stranger.log_in(username, self._secret(f"password that {username} mistyped"))
        self.console.shown += stranger.shown

    def _secret(self, name: str) -> str:
        """A new one, with characters that are written differently in each place."""
        secret = f"{secrets.token_urlsafe(24)}<'&\"%\\+/>{secrets.token_urlsafe(24)}"
        self.canaries.plant(name, secret)
        return secret

    def _key_shown_once(self, name: str, page: str) -> None:
        """Takes the page that shows a new key out of what the browser was shown."""
        found = API_KEY.search(page)
        key = unescape(found[1]) if found else ""
        self.canaries.plant_key(name, key)
        self._shown_once(name, "", self.console)

    def _shown_once(self, name: str, secret: str, console: Console) -> None:
        """Takes the last page, which rightly shows the secret, out of what the browser was shown."""
        if secret:
            self.canaries.plant(name, secret)
        _, content = console.shown.pop()
        self.canaries.told.append((content, name))

    def _signed(self, fields: Fields, console: Console | None = None) -> Fields:
        """The fields with what proves that the console's own page sends them."""
        cookies = {cookie.name: cookie.value or "" for cookie in (console or self.console).cookies}
        return fields | {"csrfmiddlewaretoken": [cookies["csrftoken"]]}


def code_of(seed: str) -> str:
    """What an authenticator app with this seed shows now (RFC 6238)."""
    digest = hmac.digest(b32decode(seed), struct.pack(">Q", int(time.time()) // 30), hashlib.sha1)
    offset = digest[-1] & 15
    (number,) = struct.unpack(">I", digest[offset : offset + 4])
    return f"{(number & 0x7FFFFFFF) % 1_000_000:06}"
