"""The kinds of objects in a fleet's document: which model, which fields, and what lies below."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from environments.models import (
    CredentialConnection,
    Environment,
    HasConnections,
    LiteLLMConnection,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from environments.models.connections import CONNECTION_POINTERS
from workers.models import Worker, WorkerQueue

if TYPE_CHECKING:
    from django.db.models import Field

#: What a connection does not hold yet, by what people call its fields, and where what to do instead is told.
NOT_YET = {
    "cert|client_key|mtls": "a client certificate",
    "header": "what a collector asks for in headers",
    "proxy": "an egress proxy",
    "ca_|root_ca|authorit": "a certificate authority",
}

type Row = (
    Organization | Environment | TemporalConnection | LiteLLMConnection | TelemetrySettings | WorkerQueue | Worker
)


def not_yet(name: str) -> str:
    """A sentence for a field that connections do not have yet; "" for any other."""
    found = next((what for pattern, what in NOT_YET.items() if re.search(pattern, name.lower())), "")
    return (
        f"connections do not hold {found} yet; docs/operate/private-networks.md tells how workers get it"
        if found
        else ""
    )


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of object; `key` tells it from its siblings and `parent` is its foreign key to the object above."""

    name: str
    model: type[Any]
    parent: str = ""
    key: str = "name"
    #: Lists of a document -> the kind of their items, in the order in which they can be created.
    children: dict[str, "Kind"] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The name as it is written in a sentence."""
        return str(self.model._meta.verbose_name)

    @property
    def has_api_key(self) -> bool:
        return issubclass(self.model, CredentialConnection)

    @property
    def pointers(self) -> tuple[str, ...]:
        """The fields that name a connection."""
        return CONNECTION_POINTERS if issubclass(self.model, HasConnections) else ()

    @cached_property
    def fields(self) -> dict[str, "Field[Any, Any]"]:
        """The plain fields of the document: whatever a person may edit."""
        concrete = self.model._meta.concrete_fields
        names = [each.name for each in concrete if each.editable and not each.is_relation]
        ordered = sorted(names, key=lambda name: name != self.key)
        return {name: self.model._meta.get_field(name) for name in ordered}

    @property
    def takes_id(self) -> bool:
        """Whether the document may choose the UUID of an object."""
        return self.model is Worker

    def __iter__(self) -> Iterator["Kind"]:
        """Itself and all kinds below, the highest first."""
        yield self
        for child in self.children.values():
            yield from child


WORKER = Kind("worker", Worker, parent="queue")
WORKER_QUEUE = Kind("worker_queue", WorkerQueue, parent="environment", children={"workers": WORKER})
ENVIRONMENT = Kind("environment", Environment, parent="organization", children={"worker_queues": WORKER_QUEUE})
#: Lists of connections; a kind's name is also that of the field that points to one.
CONNECTIONS = {
    "temporal_connections": Kind(TemporalConnection.POINTER, TemporalConnection, parent="organization"),
    "litellm_connections": Kind(LiteLLMConnection.POINTER, LiteLLMConnection, parent="organization"),
    "all_telemetry_settings": Kind(TelemetrySettings.POINTER, TelemetrySettings, parent="organization"),
}
ORGANIZATION = Kind("organization", Organization, key="id", children={**CONNECTIONS, "environments": ENVIRONMENT})
