"""Somebody who edits secrets in the console, over HTTP with a session, as a browser would."""

import json
import re
import secrets
import time
from html import unescape
from http import HTTPStatus
from http.client import HTTPConnection
from urllib.parse import urlencode

from tests.drills.service import Service
from tests.drills.tenants import Credential

FORM_FIELD = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


CREATE_SUPERUSERS = """
import json, sys
from django.contrib.auth.models import User

for username, password in json.loads(sys.stdin.read()).items():
    User.objects.create_superuser(username, password=password)
"""


def create_editors(service: Service, count: int) -> "list[Editor]":
    """So many superusers."""
    accounts = {f"editor-{number}": secrets.token_urlsafe(16) for number in range(count)}
    service.set_up("shell", "--no-imports", "--command", CREATE_SUPERUSERS, input=json.dumps(accounts))
    return [Editor(*account) for account in accounts.items()]


class Editor:
    """A superuser who signs in when there is something to do."""

    def __init__(self, username: str, password: str) -> None:
        self._account = {"username": username, "password": password, "next": "/admin/"}
        self._cookies: dict[str, str] = {}

    def sign_in(self, port: int) -> None:
        self._request(port, "GET", "/admin/login/")
        status, _ = self._request(port, "POST", "/admin/login/", self._account)
        assert status == HTTPStatus.FOUND, f"The login was answered {status}."

    def replace(self, port: int, credential: Credential) -> int:
        """Gives a connection another API key, says yes to what that does, and notes both; the answer's status."""
        if not self._cookies:
            self.sign_in(port)
        secret, sent_at = f"{credential.kind}-{secrets.token_urlsafe(24)}", time.monotonic()
        address = f"/admin/environments/{credential.kind}connection/{credential.connection_id}/change/"
        form = {"name": credential.name, "requires_api_key": "on", "api_key": secret, "api_key_expires_on": ""}
        if credential.kind == "temporal":
            form |= {"host": "temporal.example.com:7233", "namespace": credential.organization_id}
            form |= {"is_tls_enabled": "on"}
        else:
            form |= {"api_url": "https://llm.example.com"}
        status, page = self._request(port, "POST", address, form)
        while status == HTTPStatus.OK and (question := page.partition('id="confirm-change"')[2]):
            # It is asked again when other workers are online by now.
            confirmed = {key: unescape(it) for key, it in FORM_FIELD.findall(question)}
            status, page = self._request(port, "POST", address, confirmed)
        credential.history.append((sent_at, time.monotonic() if status == HTTPStatus.FOUND else None, secret))
        return status

    def _request(self, port: int, method: str, path: str, form: dict[str, str] | None = None) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self._cookies.items())}
            body = None
            if form is not None:
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                body = urlencode({**form, "csrfmiddlewaretoken": self._cookies["csrftoken"]})
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            for cookie in response.headers.get_all("Set-Cookie", []):
                name, _, value = cookie.partition(";")[0].partition("=")
                self._cookies[name] = value
            return response.status, response.read().decode()
        finally:
            connection.close()
