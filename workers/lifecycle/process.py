"""Which process of a worker speaks: the evidence that a request carries, since it names only the worker."""

import hashlib
from dataclasses import dataclass
from typing import Any, Self
from uuid import UUID

from django.db import models
from django.db.models import Q, Value
from django.db.models.lookups import Exact

from environments.database.statements import Parameter, Select
from workers.models import WorkerInstance
from workers.models.instances import DIGEST_LENGTH, HOSTNAME_LENGTH, InstanceQuerySet

#: How many instances are looked at when it is in doubt which one speaks; the newest come first.
CANDIDATES = 20
LARGEST_PID = 2**63 - 1
#: In a statement, for a process id that was not told.
UNTOLD = -1
#: What a process may tell of itself that stays as it is for its life, and where its digest is kept.
TOLD_ONCE = {"container_id": "container_digest", "boot_id": "boot_digest", "process_started_at": "birth_digest"}
#: What a process may tell of itself that tells it from another one.
EVIDENCE = ("hostname", "pid", *TOLD_ONCE)


@dataclass(frozen=True)
class Client:
    """Where a request comes from."""

    address: str | None
    user_agent: str = ""


@dataclass(frozen=True)
class Process:
    """A process as far as a request tells; what it does not tell is "" or None, and says nothing for or against it."""

    hostname: str
    pid: int | None
    client_address: str | None
    container_digest: str = ""
    boot_digest: str = ""
    birth_digest: str = ""

    @classmethod
    def of(cls, system_info: dict[str, Any], client: Client) -> Self:
        """Reads what workers report; anything may stand there, so what is no host name or number is left out."""
        hostname, pid = system_info.get("hostname"), system_info.get("pid")
        return cls(
            hostname=hostname[:HOSTNAME_LENGTH] if isinstance(hostname, str) else "",
            pid=pid if type(pid) is int and 0 <= pid <= LARGEST_PID else None,
            client_address=client.address,
            **{digest: _digest(system_info.get(name)) for name, digest in TOLD_ONCE.items()},
        )

    @property
    def is_identified(self) -> bool:
        """Whether it tells more than a host, whose name may change while its processes run."""
        return self.pid is not None or bool(self.container_digest or self.boot_digest or self.birth_digest)

    @property
    def is_told(self) -> bool:
        """Whether it tells anything of itself, beside the address that every request has."""
        return bool(self.hostname) or self.is_identified

    def is_another_than(self, instance: WorkerInstance) -> bool:
        """Whether anything that both have told differs: then it is never taken for that one."""
        names = ("hostname", *TOLD_ONCE.values())
        is_other_pid = None not in (self.pid, instance.pid) and self.pid != instance.pid
        return is_other_pid or any(self._differs(instance, name) for name in names)

    def may_be(self, instance: WorkerInstance) -> bool:
        """Whether nothing speaks against it, and the same host speaks for it; where none is told, the same address."""
        if self.is_another_than(instance):
            return False
        return bool(self.hostname and instance.hostname) or self.client_address == instance.client_address

    def is_certainly(self, instance: WorkerInstance) -> bool:
        """Whether it stands at the same place, and nothing says that it is a later process there."""
        return self._is_at_place_of(instance) and not self.is_another_than(instance)

    def succeeds(self, instance: WorkerInstance) -> bool:
        """Whether that one is this one, or has ended: no two processes are at one place, and no machine runs twice.

        A place is a process id of a host or container. Another boot of the same host ends all that ran there before.
        """
        is_other_boot = self._differs(instance, "boot_digest") and not (
            self.container_digest or instance.container_digest
        )
        is_same_host = bool(self.hostname) and self.hostname == instance.hostname
        is_rebooted = is_same_host and is_other_boot and self.client_address == instance.client_address
        return is_rebooted or self._is_at_place_of(instance)

    def is_beside(self, instance: WorkerInstance) -> bool:
        """Whether both tell their container, and it is not the same."""
        return self._differs(instance, "container_digest")

    @property
    def digest(self) -> str:
        """Of all that it tells of itself; "" if that is nothing."""
        told = [self.hostname, self.pid, self.container_digest, self.boot_digest, self.birth_digest]
        return _digest(repr(told)) if self.is_told else ""

    def as_parameters(self) -> dict[str, Any]:
        """The parameters of MAY_BE and the other conditions here."""
        return {**vars(self), "pid": UNTOLD if self.pid is None else self.pid}

    def _is_at_place_of(self, instance: WorkerInstance) -> bool:
        if not self.hostname or self.pid is None or self.is_beside(instance):
            return False
        is_same_container = bool(self.container_digest) and self.container_digest == instance.container_digest
        is_same_address = self.client_address == instance.client_address
        is_same_number = (self.hostname, self.pid) == (instance.hostname, instance.pid)
        return is_same_number and (is_same_container or is_same_address)

    def _differs(self, instance: WorkerInstance, name: str) -> bool:
        told, known = getattr(self, name), getattr(instance, name)
        return bool(told and known and told != known)


def newest(instances: InstanceQuerySet) -> InstanceQuerySet:
    """Of a worker's instances the current one, then the latest: few, by an index, however often it has started."""
    return instances.order_by("-is_current", "-started_at")[:CANDIDATES]


def _digest(told: Any) -> str:
    """Short, since each heartbeat writes the row that has it; "" for what is no text or number."""
    if isinstance(told, bool) or not isinstance(told, str | int | float) or told == "":
        return ""
    return hashlib.sha256(str(told).encode(errors="replace")).hexdigest()[:DIGEST_LENGTH]


def _given(name: str) -> Parameter:
    return Parameter(name, models.BigIntegerField() if name == "pid" else models.CharField())


def _untold(name: str) -> Q:
    return Q(Exact(_given(name), Value("")))


def _agrees(name: str) -> Q:
    """Not both told and different."""
    return Q(**{name: ""}) | _untold(name) | Q(**{name: _given(name)})


_AGREES_ON_PID = Q(pid=None) | Q(Exact(_given("pid"), UNTOLD)) | Q(pid=_given("pid"))
AT_SAME_ADDRESS = Q(client_address=Parameter("client_address", models.GenericIPAddressField()))
#: The contrary of `Process.is_another_than` as a condition on instances.
AGREES = _agrees("hostname") & _AGREES_ON_PID
for _name in TOLD_ONCE.values():
    AGREES &= _agrees(_name)
_HAS_HOST = ~Q(hostname="") & ~_untold("hostname")
#: `Process.may_be` as a condition on instances; of requests without an address it holds for none.
MAY_BE = AGREES & (_HAS_HOST | AT_SAME_ADDRESS)

_IN_SAME_CONTAINER = Q(container_digest=_given("container_digest")) & ~_untold("container_digest")
_AT_SAME_PLACE = Q(pid=_given("pid")) & _agrees("container_digest") & (_IN_SAME_CONTAINER | AT_SAME_ADDRESS)
_IN_NO_CONTAINER = Q(container_digest="") & _untold("container_digest")
_OF_ANOTHER_BOOT = ~Q(boot_digest="") & ~_untold("boot_digest") & ~Q(boot_digest=_given("boot_digest"))
#: `Process.succeeds` as a condition on instances.
SUCCEEDED = (
    ~_untold("hostname")
    & Q(hostname=_given("hostname"))
    & (_AT_SAME_PLACE | (_OF_ANOTHER_BOOT & _IN_NO_CONTAINER & AT_SAME_ADDRESS))
)
#: The same unless that one is known to run beside others that tell the same of themselves.
SUCCEEDED_ALONE = SUCCEEDED & (Q(is_contested=False) | _IN_SAME_CONTAINER)

_OF_PROCESS = Select(
    lambda: newest(WorkerInstance.objects.filter(MAY_BE, worker=Parameter("worker_id", models.UUIDField())))
)


def instances_of(process: Process, worker_id: UUID) -> list[WorkerInstance]:
    """Those of the worker's that may be the process, running or not, however many others have started since."""
    return _OF_PROCESS(worker_id=worker_id, **process.as_parameters()) if process.is_told else []
