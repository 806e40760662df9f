"""Verifies a LiteLLM connection: asks the gateway for the models that the API key may use."""

from http import HTTPStatus

from environments.connections.verification.credentials import key_to_send
from environments.connections.verification.guard import Resolver, resolve_name
from environments.connections.verification.http_calls import Answer, call, refusal_of
from environments.connections.verification.outcome import ConnectionProblemError, Deadline, Verification, measured
from environments.encryption import Secret
from environments.endpoints.rules import read_gateway_url
from environments.models import LiteLLMConnection


def verify_litellm(connection: LiteLLMConnection, secret: Secret, *, resolve: Resolver = resolve_name) -> Verification:
    """Asks for `/v1/models`, which needs a valid key but, unlike `/key/info`, no database behind the gateway."""
    return measured(lambda deadline: _check(connection, secret, deadline, resolve))


def _check(connection: LiteLLMConnection, secret: Secret, deadline: Deadline, resolve: Resolver) -> str:
    endpoint = read_gateway_url(connection.api_url)
    path = endpoint.path + ("/models" if endpoint.path.endswith("/v1") else "/v1/models")
    key = key_to_send(connection, secret)
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    answer = call("GET", endpoint, path, headers=headers, deadline=deadline, resolve=resolve)
    if problem := _problem_of(answer):
        raise ConnectionProblemError(problem)
    version = answer.headers.get("x-litellm-version", "")
    return f"LiteLLM {version}" if version else ""


def _problem_of(answer: Answer) -> str:
    match answer.status:
        case HTTPStatus.OK:
            is_json = answer.headers.get_content_type() == "application/json"
            return "" if is_json else f"{answer.destination} answers, but not as LiteLLM does: is the URL complete?"
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN as status:
            return f"The API key is not accepted ({status})."
        case HTTPStatus.BAD_REQUEST:
            # https://github.com/BerriAI/litellm/issues/12273
            return "The request is refused (400), as by a LiteLLM without a database for any key but its master key."
    return refusal_of(answer)
