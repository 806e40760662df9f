"""Views of which refused calls are noted, for those who wait for the worker."""

from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError
from rest_framework.response import Response

from environments import times
from workers.api.authentication import key_of
from workers.api.requests import WorkerApiView, client_of
from workers.api_keys.access import KeyOutOfScopeError, UnknownObjectError
from workers.api_keys.presented import UnusableKeyError
from workers.api_keys.tokens import UUID_TEXT
from workers.lifecycle.refusals import RefusedCall, record_refused_call

#: What is told of refusals whose answer says less.
REASONS: dict[type[Exception], str] = {
    UnknownObjectError: "The API key's organization has nothing of the id or name that was asked for.",
    KeyOutOfScopeError: "The API key's scope does not cover what was asked for.",
}


class NotingView(WorkerApiView):
    """An endpoint that notes why it refuses."""

    def answer_to(self, error: Exception) -> Response:
        """The answer to an error; 503 when the refusal cannot be noted."""
        response = super().answer_to(error)
        if self.request.method == "POST":
            try:
                self.note(error, response)
            except (DatabaseError, InterfaceError) as away:
                return super().answer_to(away)
        return response

    def note(self, error: Exception, response: Response) -> None:
        """Notes the refusal, if it is one to be noted."""
        raise NotImplementedError

    def refused(self, error: Exception, response: Response) -> RefusedCall:
        """What is told of it: no word of the caller's own."""
        return RefusedCall(
            worker_id=self.named_worker,
            status=response.status_code,
            reason=_reason_of(error, response),
            client_address=client_of(self.request).address,
            now=times.now(),
        )

    @property
    def named_worker(self) -> UUID | None:
        """The worker that the path names, be it there or not."""
        worker_id = self.kwargs.get("worker_id", "")
        return UUID(worker_id) if UUID_TEXT.fullmatch(worker_id) else None


class RunningWorkerView(NotingView):
    """A call of a running worker; the last one that was refused is noted with the worker."""

    #: What the call is, for people.
    call: str
    max_bytes = 1024 * 1024  # with log lines, or the text of an error: neither costs a worker its life or its goodbye
    noted = frozenset({400, 403, 409, 413, 415, 422})

    @property
    def named_worker(self) -> UUID | None:
        """The one in the path, or else the one that the body named, or that the key is for."""
        return super().named_worker or self.worker_in_body or key_of(self.request).worker_id

    worker_in_body: UUID | None = None

    def note(self, error: Exception, response: Response) -> None:
        """With the worker, if it is there."""
        if self.request.auth and response.status_code in self.noted:
            record_refused_call(key_of(self.request), self.call, self.refused(error, response))


def _reason_of(error: Exception, response: Response) -> str:
    """A text of ours; a body's own words are none, so of what is wrong with it only the kind is told."""
    if isinstance(error, UnusableKeyError):
        return error.reason
    detail: Any = response.data["detail"]
    if isinstance(detail, list):
        return f"The body was refused: {detail[0]['msg']}."
    return REASONS.get(type(error), str(detail))
