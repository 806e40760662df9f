"""A small OpenID provider on loopback: discovery, authorize, token with PKCE, keys and userinfo."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT_ID, CLIENT_SECRET = "control-plane", "secret-of-the-client"


class OpenIdProvider:
    """Signs in whoever `claims` says, at once; `userinfo`, `issuer`, `audience` and `key` may lie."""

    def __init__(self) -> None:
        self.key = self.published = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.claims: dict[str, Any] = {}
        self.userinfo: dict[str, Any] = {}
        self.issuer = self.audience = ""
        self.error = ""
        self.grants: dict[str, dict[str, str]] = {}
        self.asked: list[dict[str, str]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path, query = urlsplit(self.path).path, urlsplit(self.path).query
                if path == "/authorize":
                    self.send_response(302)
                    self.send_header("Location", provider.authorize(_flat(query)))
                    self.end_headers()
                    return
                self._answer(*provider.read(path))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self._answer(*provider.token(_flat(body)))

            def _answer(self, status: int, answer: Any) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_args: Any) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def read(self, path: str) -> tuple[int, Any]:
        names = {"authorization_endpoint": "authorize", "token_endpoint": "token", "userinfo_endpoint": "userinfo"}
        if path == "/.well-known/openid-configuration":
            found = {name: f"{self.url}/{value}" for name, value in names.items()}
            return 200, {**found, "issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        if path == "/jwks":
            public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.published.public_key()))
            return 200, {"keys": [{**public, "kid": "one", "alg": "RS256", "use": "sig"}]}
        if path == "/userinfo":
            return 200, self.claims | self.userinfo
        return 404, {}

    def authorize(self, asked: dict[str, str]) -> str:
        self.asked.append(asked)
        if self.error:
            return f"{asked['redirect_uri']}?{urlencode({'error': self.error, 'state': asked['state']})}"
        self.grants[code := secrets.token_hex(8)] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, sent: dict[str, str]) -> tuple[int, Any]:
        asked = self.grants.pop(sent.get("code", ""), None)
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        is_proven = asked and base64.urlsafe_b64encode(digest).decode().rstrip("=") == asked.get("code_challenge")
        if not is_proven or sent.get("client_secret") != CLIENT_SECRET:
            return 400, {"error": "invalid_grant"}
        own = {
            "iss": self.issuer or self.url,
            "aud": self.audience or CLIENT_ID,
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
        }
        identity = jwt.encode(own | self.claims, self.key, "RS256", headers={"kid": "one"})
        return 200, {"access_token": "opaque", "token_type": "Bearer", "id_token": identity}


@contextmanager
def open_id_provider() -> Iterator[OpenIdProvider]:
    """A provider that serves until the end of the block."""
    provider = OpenIdProvider()
    thread = threading.Thread(target=provider.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield provider
    finally:
        provider.server.shutdown()
        thread.join()
        provider.server.server_close()


def _flat(text: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(text).items()}
