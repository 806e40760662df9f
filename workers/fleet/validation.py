"""What is wrong with one object of a document; of the database it asks at most what a constraint says of a row."""

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db.models import CheckConstraint, UniqueConstraint

from environments.models import CredentialConnection
from workers.fleet.document import Entry
from workers.fleet.errors import Problem
from workers.fleet.kinds import Row
from workers.fleet.state import Fleet

KEY_REQUIRED = "is required: api_key: {env: NAME} or {file: PATH}; or requires_api_key: false for a server without one"


def problems_of(entry: Entry, row: Row, fleet: Fleet, changed: Iterable[str] | None) -> list[Problem]:
    """What the model's validators and constraints say, each at the line of its field.

    What the row refers to is in the fleet, and so of its organization. `changed` is None for a new row.
    """
    lacks_key = isinstance(row, CredentialConnection) and row.requires_api_key and not row.sealed_api_key
    problems = [entry.problem(KEY_REQUIRED, "api_key")] if lacks_key else []
    relations = {each.name for each in row._meta.concrete_fields if each.is_relation}
    exclude = {"sealed_api_key"} if lacks_key else set()
    errors: dict[str, list[ValidationError]] = {}
    try:
        row.full_clean(exclude=exclude | relations, validate_unique=False, validate_constraints=False)
    except ValidationError as error:
        errors = error.update_error_dict(errors)
    exclude |= errors.keys()
    for check in (_check_name, _check_conditions):
        try:
            check(row, fleet, exclude, changed)
        except ValidationError as error:
            errors = error.update_error_dict(errors)
    for name, found in errors.items():
        field = "" if name == NON_FIELD_ERRORS else name
        problems += [entry.problem(text, field) for text in _texts(entry, name, found)]
    return problems


def _check_name(row: Row, fleet: Fleet, exclude: set[str], _: Iterable[str] | None) -> None:
    """ValidationError when another object in the same place has the name."""
    if fleet.namesake(row) is None or "name" in exclude:
        return
    for constraint in row._meta.constraints:
        if isinstance(constraint, UniqueConstraint) and "name" in constraint.fields:
            raise row.unique_error_message(type(row), constraint.fields)


def _check_conditions(row: Row, _: Fleet, exclude: set[str], changed: Iterable[str] | None) -> None:
    """ValidationError when the row does not meet a condition of which something changed; others it met before."""
    for constraint in row._meta.constraints:
        if isinstance(constraint, CheckConstraint) and (changed is None or _names(constraint) & set(changed)):
            constraint.validate(type(row), row, exclude)


def _names(constraint: CheckConstraint) -> set[str]:
    """The fields of a condition."""
    return {name.partition("__")[0] for name, _ in _leaves(constraint.condition)}


def _leaves(condition: Any) -> Iterable[tuple[str, Any]]:
    for child in condition.children:
        if isinstance(child, tuple):
            yield child
        else:
            yield from _leaves(child)


def _texts(entry: Entry, name: str, errors: list[ValidationError]) -> list[str]:
    """The messages of one field; of a field that is not in the document, that it is missing."""
    if name not in entry.lines and any(error.code in {"blank", "null"} for error in errors):
        return ["is required"]
    return [text for error in errors for text in error.messages]
