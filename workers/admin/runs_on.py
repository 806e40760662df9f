"""The filter that lists the workers which run with one version of a connection's API key."""

import re
from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from environments import times
from environments.members import staff_of
from environments.models import CredentialConnection, LiteLLMConnection, TemporalConnection
from workers.rotation_wave import running_on

RUNS_ON = re.compile(r"(?P<connection>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}):(?P<version>[0-9]{1,9})", re.ASCII)


class RunsOnFilter(admin.SimpleListFilter):
    """Workers that run with `?runs_on=<connection>:<version>`; shown only where a link has led to it."""

    title = "runs on"
    parameter_name = "runs_on"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:  # noqa: ARG002
        """The one that was asked for."""
        value = self.value()
        if not value:
            return []
        match = RUNS_ON.fullmatch(value)
        self.version = int(match["version"]) if match else 0
        self.connection = _connection(request, match["connection"]) if match else None
        name = f"{self.connection}, API key version {self.version}" if self.connection else "an unknown API key"
        return [(value, name)]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:  # noqa: ARG002
        if not self.value():
            return queryset
        if self.connection is None:
            return queryset.none()
        processes = running_on(self.connection, self.version, times.now())
        return queryset.filter(pk__in=processes.values("worker_id"))


def _connection(request: HttpRequest, identifier: str) -> CredentialConnection | None:
    """The connection of either kind, if the person may see it."""
    for model in (TemporalConnection, LiteLLMConnection):
        found: CredentialConnection | None
        found = staff_of(request).within(model.objects.filter(pk=identifier), "organization").first()
        if found:
            return found
    return None
