"""Who makes one change of what people set up, what has to be true for that, and why it is refused."""

from collections.abc import Collection
from copy import copy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from environments import audit
from environments.audit import Actor
from environments.models import Environment, Organization
from environments.models.connections import Connection
from environments.models.json_fields import digest_of
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError, permit
from workers.api_keys.presented import NoUsableKeyError
from workers.models import ApiKey, KeyRole, Scope, Worker, WorkerQueue
from workers.models.states import HasState

type Level = Organization | Environment | WorkerQueue | Worker
type Editable = Level | Connection


class KeyMayNotManageError(Exception):
    """The API key is a worker's, which changes nothing that people set up."""


class NameTakenError(Exception):
    """Another one in the same place has the name."""


class InUseError(Exception):
    """Something needs the row as it is; the message says what."""


class ChangedMeanwhileError(Exception):
    """The row is no longer the version that the change was to be made of."""


def version_of(row: Any, now: datetime) -> str:
    """12 hexadecimal digits that change when anything of the row does that somebody set, its secret included.

    Also when a decision ends by itself, which is stored as it was until somebody changes the row.
    """
    if isinstance(row, HasState):
        row = copy(row)
        row.forget_ended(now)
    return digest_of(audit.snapshot(row))


@dataclass(frozen=True)
class Editor:
    """Who makes a change, and when; with an API key, which has to reach what is changed.

    With `versions` the change is only made of a row in one of these.
    """

    actor: Actor
    now: datetime
    api_key: ApiKey | None = None
    versions: Collection[str] | None = None

    def require_reach(self, row: Any) -> None:
        """Asks the key's row once more: it may have been revoked while a lock was waited for. Errors as `permit`."""
        if self.api_key is not None:
            require_reach(row, self._key_now())
        if self.versions is not None and version_of(row, self.now) not in self.versions:
            raise ChangedMeanwhileError

    def require_all_of(self, organization_id: str) -> None:
        """The same of what is new right in the organization, which only a key for all of it reaches."""
        if self.api_key is not None:
            require_all_of(organization_id, self._key_now())

    def _key_now(self) -> ApiKey:
        key = ApiKey.objects.usable(self.now).filter(pk=cast("ApiKey", self.api_key).pk).first()
        if key is None:
            raise NoUsableKeyError
        if key.role != KeyRole.MANAGER:
            raise KeyMayNotManageError
        return key


def require_reach(row: Any, key: ApiKey) -> None:
    """KeyOutOfScopeError for a row that the key does not reach: what is right in the organization is for all of it."""
    target: Any = row.target if isinstance(row, ApiKey) else row
    if isinstance(target, (Organization, Connection)):
        require_all_of(target.organization_id, key)
    else:
        permit(target, key)


def require_all_of(organization_id: str, key: ApiKey) -> None:
    """UnknownObjectError for another organization, KeyOutOfScopeError unless the key is for all of it."""
    if key.organization_id != organization_id:
        raise UnknownObjectError
    if key.scope != Scope.ORGANIZATION:
        raise KeyOutOfScopeError
