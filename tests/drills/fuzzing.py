"""Whatever is sent to any endpoint is answered as the served document says, and tells nothing of another organization.

schemathesis makes up valid and invalid requests for every operation of the document; callers are a key of the whole
organization, for ids that name nothing, for its own, and for another organization's, and somebody without a key. Every
answer has a documented status and a body of its schema, is no 5xx, holds no traceback, nothing that only the other
organization knows, and no credential where none is given. With the same seed, the same requests are made again.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from http.client import HTTPConnection
from itertools import count, product
from pathlib import Path
from typing import Any

from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.transport import Response

from tests.drills.drill import Figure, Scale, say
from tests.drills.service import Fleet, Service, prepared_server
from tests.support.conformance import START, Change, Ids, as_generated, for_these, operations_of, try_operation
from tests.support.databases import THROWAWAY

PUBLIC = frozenset({"GET /api/health", "GET /api/health/detailed", "GET /api/ready"})
#: What other organizations have alike.
NAMES = {"environment_name", "runner_name"}
LISTS = frozenset(
    {
        "GET /api/v1/environments",
        "GET /api/v1/worker-queues",
        "GET /api/v1/organization",
        "GET /api/v1/registered-workers",
        "GET /api/v1/workers",
        "GET /api/v1/workers/{runner_name}",  # by a name, of which each organization may have one
    }
)
#: It names its environment by a name, which means the own organization's; the document's example may be one of its names.
REGISTER = "POST /api/v1/workers/register"
#: What alone is answered with credentials.
GIVING_CREDENTIALS = frozenset({START, REGISTER, "POST /api/v1/worker-queues/{queue_id}/start"})


@dataclass(frozen=True)
class Caller:
    """Who calls and for what; where that may succeed, None being anywhere; and texts that no answer may hold."""

    name: str
    headers: dict[str, str]
    change: Change
    ids: Ids
    may_succeed: frozenset[str] | None
    hidden: list[str]


@dataclass
class Campaign:
    """Makes requests in rows of one kind, counts them, and keeps what was not as promised."""

    #: What no answer holds but those that give credentials.
    credentials: list[str]
    statuses: Counter[int] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    def attempt(self, caller: Caller, operation: Any, mode: GenerationMode, *, row: int, number: int) -> None:
        """So many requests to one operation, from which Hypothesis works its way up to odd ones."""
        options: dict[str, Any] = {"change": caller.change, "ids": caller.ids, "headers": caller.headers, "mode": mode}
        try:
            try_operation(
                operation,
                lambda answer: self._examine(caller, operation.label, answer),
                count=row,
                number=number,
                **options,
            )
        except Unsatisfiable:
            pass  # what has no parameters cannot be called in an invalid way
        except (Exception, BaseExceptionGroup) as problem:  # noqa: BLE001  # whatever it is, the drill looks for it
            self.unexpected.append(f"{operation.label} for {caller.name}, {mode}")
            say(f"{self.unexpected[-1]}: {problem}")

    def _examine(self, caller: Caller, label: str, answer: Response) -> None:
        self.statuses[answer.status_code] += 1
        hidden = caller.hidden + (self.credentials if label not in GIVING_CREDENTIALS else [])
        assert "Traceback" not in answer.text, answer.text
        assert not [text for text in hidden if text in answer.text], answer.text
        if caller.may_succeed is not None and label not in caller.may_succeed:
            assert answer.status_code >= 400, answer.text


def run(scale: Scale, directory: Path) -> Figure:
    database = prepared_server(directory, THROWAWAY)
    service = Service(directory, database.url)
    service.prepare()
    fleet, foreign = service.create_fleet(1), service.create_fleet(1, "another-one")
    service.start()
    campaign = Campaign([fleet.temporal_api_key, fleet.litellm_api_key, fleet.api_key])
    callers = callers_of(service, fleet, foreign)
    wanted, row = scale.of(4_000, 50_000), scale.of(11, 75)  # a quick pass makes some 4,400
    for number in count(scale.seed):
        for operation, caller, mode in product(operations_of(service.url), callers, GenerationMode):
            campaign.attempt(caller, operation, mode, row=row, number=number)
        say(f"answers: {dict(campaign.statuses.most_common())}")
        if campaign.statuses.total() >= wanted or campaign.unexpected:
            break
    service.stop()
    database.stop()
    return judge(campaign, service.process.log_text())


def callers_of(service: Service, fleet: Fleet, foreign: Fleet) -> list[Caller]:
    """Everybody who tries."""
    own, others = ids_of(service, fleet), ids_of(service, foreign)
    key = {"Authorization": f"Bearer {fleet.api_key}"}
    secrets = [foreign.organization_id, foreign.api_key, foreign.temporal_api_key, foreign.litellm_api_key]
    hidden = secrets + [text for name, text in others.items() if name not in NAMES]
    known = [fleet.organization_id, *(text for name, text in own.items() if name not in NAMES)]
    return [
        Caller("ids that name nothing", key, as_generated, {}, PUBLIC | LISTS | {REGISTER}, hidden),
        Caller("the key's own ids", key, for_these, own, None, hidden),
        Caller("another organization's ids", key, for_these, others, PUBLIC | LISTS | {REGISTER}, hidden),
        Caller("nobody", {}, for_these, own, PUBLIC, hidden + known),
    ]


def ids_of(service: Service, fleet: Fleet) -> Ids:
    """What an organization has, by the names that the document gives its parameters; its worker is started."""
    environment, queue = (get(service, fleet, name)[0] for name in ("environments", "worker-queues"))
    managed = service.managed_ids(fleet.organization_id)
    return {
        "key_id": managed.pop("key")[0],
        **{f"connection_id of {kind}": ids[0] for kind, ids in managed.items()},
        "worker_id": fleet.worker_ids[0],
        "queue_id": queue["id"],
        "environment_id": environment["id"],
        "environment_name": environment["name"],
        "runner_name": f"{environment['name']}.{queue['name']}",
    }


def get(service: Service, fleet: Fleet, name: str) -> list[dict[str, Any]]:
    """A list, as the fleet's key has it."""
    connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
    connection.request("GET", f"/api/v1/{name}", headers={"Authorization": f"Bearer {fleet.api_key}"})
    found: list[dict[str, Any]] = json.load(connection.getresponse())
    connection.close()
    return found


def judge(campaign: Campaign, log: str) -> Figure:
    """Nothing unexpected, and no traceback in the log either; that some succeed shows that requests reach their aim."""
    made, succeeded = campaign.statuses.total(), campaign.statuses[200] + campaign.statuses[204]
    text = f"{len(campaign.unexpected)} unexpected of {made:,} requests made from the document, {succeeded:,} served"
    return Figure(text, not campaign.unexpected and "Traceback" not in log and succeeded > made / 20)
