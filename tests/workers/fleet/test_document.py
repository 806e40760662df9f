import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from environments.models import AuditEvent
from environments.models.json_fields import TagsField
from tests.support.documents import ACME, ENVIRON, LITELLM_SECRET, TEMPORAL_SECRET, apply, everything
from tests.support.quick import examples
from tests.support.special_files import SPECIAL_FILES, make_special_file
from tests.support.yaml_documents import documents
from workers.fleet import FleetError, document, export_document
from workers.fleet.document import MAX_BYTES, Entry, read_document
from workers.fleet.kinds import ORGANIZATION, Kind

SECRET_LINE = "        api_key: {env: TEMPORAL_API_KEY}\n"
CONNECTION = f"""\
organizations:
  - id: acme
    temporal_connections:
      - name: cloud
{SECRET_LINE}"""
PATH = "organizations[0].temporal_connections[0]"


def read(text: str, *, directory: Path = Path(), environ: dict[str, str] = ENVIRON) -> list[Entry]:
    return read_document(text, source="fleet.yaml", directory=directory, environ=environ).organizations


def refusal(text: str, **options: Any) -> str:
    with pytest.raises(FleetError) as caught:
        read(text, **options)
    return str(caught.value)


def secret_refusal(secret: str, **options: Any) -> str:
    return refusal(CONNECTION.replace("{env: TEMPORAL_API_KEY}", secret), **options)


# --- Positions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "fleet.yaml: is empty: it begins with organizations:"),
        ("# nothing", "fleet.yaml: is empty: it begins with organizations:"),
        ("hello", "fleet.yaml:1: expected fields, each as name: value\nfleet.yaml:1: organizations: is missing"),
        ("organizations: 5", "fleet.yaml:1: organizations: expected a list, each item with a - in front"),
        ("organizations: [acme]", "fleet.yaml:1: organizations[0]: expected fields, each as name: value"),
        (
            "organizations: []\nworkers: []",
            "fleet.yaml:2: workers: unknown field; the document begins with organizations:",
        ),
        ("organizations:\n- name: Acme", "fleet.yaml:2: organizations[0].id: is required"),
        ("organizations:\n- id: acme\n  id: b", "fleet.yaml:3: organizations[0].id: is given twice, first in line 2"),
        (
            "organizations:\n- id: 5",
            "fleet.yaml:2: organizations[0].id: expected a text; put a number, a date, yes or no in quotes",
        ),
        (
            "organizations:\n- id: acme\n  name: null",
            "fleet.yaml:3: organizations[0].name: is empty; leave the field out to keep its value",
        ),
        ("organizations:\n- id: acme\n- id: acme", "fleet.yaml:3: organizations[1].id: is the same as in line 2"),
        ("organizations:\n- 5: acme\n  id: a", "fleet.yaml:2: organizations[0]: the name of a field is not a text"),
        ("organizations:\n- [a]: acme\n  id: a", "fleet.yaml:2: organizations[0]: the name of a field is not a text"),
        ("organizations: []\n---\norganizations: []", "fleet.yaml:2: has several documents: keep one"),
        ("organizations:\n- &a {id: acme}\n- *a", "fleet.yaml:2: anchors (&) and aliases (*) are not supported"),
        ("organizations:\n- {id: !!str 5}", "fleet.yaml:2: tags (!) are not supported"),
        ("organizations:\n- {id: !!python/name:os.system x}", "fleet.yaml:2: tags (!) are not supported"),
        ("organizations:\n  - id: [", "fleet.yaml:3: is not valid YAML: "),
        ("organizations:\n\t- id: a", "fleet.yaml:2: is not valid YAML: "),
        ("a: \x07", "fleet.yaml: is not valid YAML: it has characters that YAML does not allow"),
        ("a: \0", "fleet.yaml: is not a text in UTF-8, or has NUL characters"),
        ("a: \udcff", "fleet.yaml: is not a text in UTF-8, or has NUL characters"),
        ("[" * 100_000, "fleet.yaml:1: is nested too deeply"),
        ("- " * 100_000, "fleet.yaml:1: is nested too deeply"),
        ("{a: " * 100_000, "fleet.yaml:1: is nested too deeply"),
        ("#" * (MAX_BYTES + 1), "fleet.yaml: has more than 5,000,000 bytes"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


QUEUE = "organizations[0].environments[0].worker_queues[0]"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("interval: 30", "interval: '30'", f"18: {QUEUE}.heartbeat_interval: expected a whole number"),
        ("interval: 30", "interval: 3.5", f"18: {QUEUE}.heartbeat_interval: expected a whole number"),
        ("interval: 30", "interval: 1:30", f"18: {QUEUE}.heartbeat_interval: expected a whole number"),
        ("interval: 30", f"interval: {'9' * 5000}", f"18: {QUEUE}.heartbeat_interval: expected a whole number"),
        ("interval: 30", "intervall: 30", f"18: {QUEUE}.heartbeat_intervall: unknown field; here are known: name, "),
        ("is_disabled: true", "is_disabled: 1", f"21: {QUEUE}.workers[1].is_disabled: expected true or false"),
        ("is_disabled: true", "queue: default", f"21: {QUEUE}.workers[1].queue: unknown field"),
        (
            "arg: 0.5",
            "arg: 0.5, otel_exporter_otlp_headers: {env: OTLP_HEADERS}",
            "12: organizations[0].all_telemetry_settings[0].otel_exporter_otlp_headers: connections do not hold what a",
        ),
        ("6f9619ff", "x", f"20: {QUEUE}.workers[0].id: expected a UUID such as"),
        ("name: w2", "name: w1", f"21: {QUEUE}.workers[1].name: is the same as in line 20"),
        (
            "arg: 0.5",
            "arg: .nan",
            "12: organizations[0].all_telemetry_settings[0].otel_traces_sampler_arg: expected a number",
        ),
        (
            "arg: 0.5",
            "arg: 1e999",
            "12: organizations[0].all_telemetry_settings[0].otel_traces_sampler_arg: expected a",
        ),
        (
            "Where it counts",
            r'"\0"',
            "15: organizations[0].environments[0].description: has a character that cannot be",
        ),
        ("Where it counts", r'"\ud800"', ""),
        ("connection: cloud", "connection: [cloud]", "4: organizations[0].temporal_connection: expected a text"),
        (
            "    environments:",
            "    sealed_api_key: x\n    environments:",
            "13: organizations[0].sealed_api_key: unknown",
        ),
    ],
)
def test_a_wrong_field_is_told_with_its_place(old: str, new: str, message: str) -> None:
    assert f"fleet.yaml:{message}" in refusal(ACME.replace(old, new))


def test_one_id_cannot_be_given_to_two_workers() -> None:
    text = ACME.replace("name: w2", "name: w2, id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff")
    assert refusal(text) == f"fleet.yaml:21: {QUEUE}.workers[1].id: is the same as in line 20"


def test_every_problem_of_the_file_is_told_in_the_order_of_its_lines() -> None:
    text = (
        ACME.replace("name: Acme", "nom: Acme")
        .replace("interval: 30", "interval: x")
        .replace("TEMPORAL_API", "MISSING")
    )
    assert [int(line.split(":")[1]) for line in refusal(text).splitlines()] == [3, 8, 18]


def test_a_file_that_is_wrong_throughout_does_not_fill_the_screen() -> None:
    lines = refusal("organizations:\n" + "- name: a\n" * 500).splitlines()
    assert len(lines) == 51
    assert lines[-1] == "fleet.yaml: and 450 more problems"


def test_a_large_file_is_read_in_seconds() -> None:
    workers = "".join(
        f"          - {{name: worker-{number}, description: number {number}}}\n" for number in range(50_000)
    )
    text = (
        ACME.split("            workers:")[0]
        + "            workers:\n"
        + workers.replace("          -", "              -")
    )
    began = time.monotonic()
    assert sum(1 for organization in read(text) for _ in organization) == 50_006
    assert time.monotonic() - began < 60


# --- Secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "secret",
    [
        "sk-live-1234567",
        "'sk-live-1234567'",
        "[sk-live-1234567]",
        "{sk-live-1234567}",
        "{sk-live-1234567: x}",
        "{env: sk-live-1234567}",
        "{env: {file: sk-live-1234567}}",
        "{file: sk-live-1234567}",
        "{env: TEMPORAL_API_KEY, file: sk-live-1234567}",
        "&sk-live-1234567",
        "*sk-live-1234567",
        "!sk-live-1234567",
        "@sk-live-1234567",
        "%sk-live-1234567",
        "`sk-live-1234567",
        '"sk-live-1234567',
        '"\\sk-live-1234567"',
        "sk-live-1234567: sk-live-1234567",
        "'sk-live-1234567'x",
        "x, sk-live-1234567: y",
        "|9sk-live-1234567",
        "x\n        sk-live-1234567: y",
        "x\n       sk-live-1234567",
        "!sk!live-1234567",
        "!<sk-live-1234567",
    ],
)
@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.CSafeLoader])
def test_no_message_repeats_what_may_be_a_secret(secret: str, loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "LOADER", loader)
    message = secret_refusal(secret)
    assert message.startswith(("fleet.yaml:5: ", "fleet.yaml:6: "))
    assert "1234567" not in message


def test_a_secret_in_the_file_is_refused_with_the_way_to_name_it() -> None:
    assert secret_refusal("sk-live-1234567") == (
        f"fleet.yaml:5: {PATH}.api_key: write {{env: NAME}} or {{file: PATH}}; "
        "a secret itself does not belong into this file"
    )
    assert "{env: NAME}" in secret_refusal("null")


def test_a_variable_that_is_not_set_is_named() -> None:
    assert refusal(CONNECTION, environ={}) == (
        f"fleet.yaml:5: {PATH}.api_key: the environment variable TEMPORAL_API_KEY is not set"
    )


@pytest.mark.parametrize("value", ["", "\n", "a\0b", "\udcff"])
def test_an_empty_or_unreadable_variable_is_refused(value: str) -> None:
    assert "api_key: the secret there is empty or not a text" in refusal(
        CONNECTION, environ={"TEMPORAL_API_KEY": value}
    )


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"a b\n", "a b"),
    ],
)
def test_a_file_is_read_from_beside_the_document_without_its_last_newline(
    tmp_path: Path, content: bytes, secret: str
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_bytes(content)
    (organization,) = read(CONNECTION.replace("env: TEMPORAL_API_KEY", "file: secrets/key"), directory=tmp_path)
    (connection,) = organization.children["temporal_connections"]
    assert connection.api_key is not None
    assert connection.api_key.reveal() == secret


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "this file cannot be read (No such file or directory); a relative path starts at "),
        (b"", "the secret there is empty"),
        (b"\xff\xfe", "the secret there is empty or not a text in UTF-8"),
        (b"a\0b", "the secret there is empty or not a text in UTF-8 without NUL characters"),
        (b"abc\n\n", "It begins or ends with a blank or line break"),
        (b" a b ", "It begins or ends with a blank or line break"),
        (b"\xc3\xa4", "It has characters that cannot be sent"),
        (b"x" * 70_000, "this file has more than 65,536 bytes"),
    ],
)
def test_a_secrets_file_that_cannot_be_used_is_told_with_its_place(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    assert f"fleet.yaml:5: {PATH}.api_key: {message}" in secret_refusal("{file: key}", directory=tmp_path)


@pytest.mark.parametrize("name", SPECIAL_FILES)
def test_what_is_no_regular_file_is_no_secret_and_is_not_waited_for(tmp_path: Path, name: str) -> None:
    reason = make_special_file(tmp_path / "key", name)
    message = secret_refusal("{file: key}", directory=tmp_path)
    assert f"fleet.yaml:5: {PATH}.api_key: this file cannot be read ({reason}" in message


@pytest.mark.parametrize("value", ["x" * 65_537, "ä" * 40_000])
def test_a_variable_that_is_larger_than_a_secret_is_refused(value: str) -> None:
    message = secret_refusal("{env: KEY}", environ={"KEY": value})
    assert f"{PATH}.api_key: this environment variable has more than 65,536 bytes" in message


@pytest.mark.django_db
def test_secrets_are_in_no_change_no_audit_event_and_no_export() -> None:
    changes = apply(ACME) + apply(ACME, environ={name: f"{value}-2" for name, value in ENVIRON.items()})
    shown = [str(change) + json.dumps(change.as_json()) + repr(change) for change in changes]
    shown += [json.dumps(event.changes) for event in AuditEvent.objects.all()]
    shown += [json.dumps(export_document())]
    for text in shown:
        assert TEMPORAL_SECRET not in text
        assert LITELLM_SECRET not in text
        assert "cp1." not in text


TEXTS = st.one_of(
    documents(may_be_wrong=False),
    documents(may_be_wrong=True),
    st.text(),
    st.text(alphabet="organizations: \n-[]{},&*!|>'\"#%@`\t?idname5"),
    st.binary().map(lambda content: content.decode(errors="surrogateescape")),
)


@pytest.mark.django_db
@given(text=TEXTS)
@settings(max_examples=examples(150), suppress_health_check=list(HealthCheck))
def test_any_input_is_applied_or_refused_with_reasons(text: str) -> None:
    before = everything()
    with suppress(FleetError):
        apply(text, is_dry_run=True, prune=True)
    assert everything() == before


def test_every_editable_field_of_every_kind_can_be_read() -> None:
    """A new kind of field in a model needs a reader, which this finds before a user does."""
    for kind in ORGANIZATION:
        for name in kind.fields:
            key = "" if name == kind.key else f"{kind.key}: x, "
            wrong = "{x: y}" if isinstance(kind.fields[name], TagsField) else "[x]"
            text = f"organizations: [{_nested(kind, f'{key}{name}: {wrong}')}]"
            assert "expected " in refusal(text)


def _nested(kind: Kind, members: str, within: Kind = ORGANIZATION) -> str:
    if kind is within:
        return f"{{{members}}}"
    for name, child in within.children.items():
        if any(each is kind for each in child):
            return f"{{{within.key}: x, {name}: [{_nested(kind, members, child)}]}}"
    raise AssertionError(kind)
