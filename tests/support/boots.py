"""Settings as they load in a process that begins, from one file and one environment."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from environments.encryption import Key, generate_key, key_entry
from tests.support.processes import ROOT

RING, SECRET, TOKEN = key_entry(Key("ek-1", bytes(range(32)))), "s3cr3t-" * 10, "t0k3n-" * 8
GOOD = {
    "SECRET_KEY": SECRET,
    "ENCRYPTION_KEYS": RING,
    "API_KEY_SIGNING_KEYS": key_entry(generate_key("acp-1")),
    "CONTROL_PLANE_URL": "https://cp.example.com",
    "DATABASE_URL": "postgresql://controlplane:hidden@127.0.0.1:1/controlplane",
}
ALL = (
    *GOOD,
    "ALLOWED_HOSTS",
    "CONNECTION_HOSTS",
    "DATABASE_STATEMENT_TIMEOUT",
    "DEBUG",
    "METRICS_TOKEN",
    "OIDC_CLIENT_ID",
    "OIDC_CLIENT_SECRET",
    "OIDC_NAME",
    "OIDC_SERVER_URL",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "PORT",
    "REQUIRE_SECOND_FACTOR",
    "TRUSTED_PROXIES",
)


class Boot:
    """Loads the settings as a process that begins does, from this file and this environment alone."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path, self._monkeypatch = path, monkeypatch

    def __call__(self, file: str | bytes = b"", **environ: str) -> dict[str, Any]:
        for name in ALL:
            for each in (name, f"{name}_FILE"):
                self._monkeypatch.setenv(each, "")  # so that what the file adds is undone, too
                self._monkeypatch.delenv(each)
        self._monkeypatch.setenv("CONTROL_PLANE_ENV_FILE", str(self.path))
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        if not self.path.exists():
            self.path.write_bytes(file if isinstance(file, bytes) else file.encode())
            self.path.chmod(0o600)
        return runpy.run_path(str(ROOT / "controlplane" / "settings.py"))

    def fails(self, file: str | bytes = b"", **environ: str) -> str:
        with pytest.raises(ImproperlyConfigured) as caught:
            self(file, **environ)
        assert "hidden" not in str(caught.value)
        assert RING.partition(":")[2] not in str(caught.value)
        return str(caught.value)
