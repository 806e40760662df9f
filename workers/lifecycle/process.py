"""Which process of a worker speaks: the evidence that a request carries, since it names only the worker."""

from dataclasses import dataclass
from typing import Any, Self

from django.db import models
from django.db.models import Q, Value
from django.db.models.lookups import Exact

from environments.statements import Parameter
from workers.models import WorkerInstance
from workers.models.instances import HOSTNAME_LENGTH, InstanceQuerySet

#: How many instances are looked at when it is in doubt which one speaks; the newest come first.
CANDIDATES = 20
LARGEST_PID = 2**63 - 1
#: In a statement, for a process id that was not told.
UNTOLD = -1


@dataclass(frozen=True)
class Client:
    """Where a request comes from."""

    address: str | None
    user_agent: str = ""


@dataclass(frozen=True)
class Process:
    """A process as far as a request tells: its host and process id if it reports them, else only its address."""

    hostname: str
    pid: int | None
    client_address: str | None

    @classmethod
    def of(cls, system_info: dict[str, Any], client: Client) -> Self:
        """Reads what workers report; anything may stand there, so what is no host name or number is left out."""
        hostname, pid = system_info.get("hostname"), system_info.get("pid")
        return cls(
            hostname=hostname[:HOSTNAME_LENGTH] if isinstance(hostname, str) else "",
            pid=pid if type(pid) is int and 0 <= pid <= LARGEST_PID else None,
            client_address=client.address,
        )

    def may_be(self, instance: WorkerInstance) -> bool:
        """Whether nothing speaks against it: the same host and process id; where no host is told, the same address."""
        if not (self.hostname and instance.hostname):
            return self.client_address == instance.client_address
        is_same_pid = self.pid == instance.pid or self.pid is None or instance.pid is None
        return self.hostname == instance.hostname and is_same_pid

    def is_certainly(self, instance: WorkerInstance) -> bool:
        """Whether all three are told and the same, so that this is one process that repeats itself."""
        told = (self.hostname, self.pid, self.client_address)
        is_told = bool(self.hostname) and self.pid is not None
        return is_told and told == (instance.hostname, instance.pid, instance.client_address)

    def as_parameters(self) -> dict[str, Any]:
        """The parameters of MAY_BE."""
        pid = UNTOLD if self.pid is None else self.pid
        return {"hostname": self.hostname, "pid": pid, "client_address": self.client_address}


def newest(instances: InstanceQuerySet) -> InstanceQuerySet:
    """Of a worker's instances the current one, then the latest: few, by an index, however often it has started."""
    return instances.order_by("-is_current", "-started_at")[:CANDIDATES]


def _may_be() -> Q:
    hostname, pid = Parameter("hostname", models.CharField()), Parameter("pid", models.BigIntegerField())
    same_address = Q(client_address=Parameter("client_address", models.GenericIPAddressField()))
    same_pid = Q(pid=pid) | Q(pid=None) | Q(Exact(pid, UNTOLD))
    no_host_told = Q(hostname="") | Q(Exact(hostname, Value("")))
    return (no_host_told & same_address) | (~Q(hostname="") & Q(hostname=hostname) & same_pid)


#: `Process.may_be` as a condition on instances; of requests without an address it holds for none.
MAY_BE = _may_be()
