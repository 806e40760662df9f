"""Views that also change what people set up, which a worker's key may not."""

from collections.abc import Collection
from typing import ClassVar

from rest_framework.request import Request

from environments import times
from environments.audit import Actor
from workers.api.authentication import key_of
from workers.api.requests import WorkerApiView, client_of
from workers.fleet.editing import Editor, KeyMayNotManageError
from workers.models import KeyRole


class ManagingView(WorkerApiView):
    """An endpoint that reads for every key in whose scope it is, and writes for a manager's key.

    What a client sends is kept as it is, or refused: nothing is cut as in what workers tell of themselves.
    """

    is_exact = True
    #: Beyond its refusals, the statuses with which it refuses a change; for the served document.
    refusals_of_writing: ClassVar[Collection[int]] = (409,)


def editor_of(request: Request) -> Editor:
    """The API key as who makes a change, from where; KeyMayNotManageError for a worker's, before anything is locked.

    To be asked for when the object was found to be within the key's scope: others are unknown to it, whatever its role.
    """
    key = key_of(request)
    if key.role != KeyRole.MANAGER:
        raise KeyMayNotManageError
    return Editor(Actor(f"key:{key.pk}", client_of(request).address), times.now(), key)
