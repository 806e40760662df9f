"""A worker is made in one page: its answer shows the key once, texts that start it, and how its first boot goes."""

import ast
import configparser
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
import yaml
from django.core.cache import cache
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from environments.limits import counts
from environments.models import AuditEvent, Membership, Role
from tests.support import factories
from tests.support.calls import fresh_fleet, start
from tests.support.console import errors_of, everything, member, person, signed_in, url
from tests.support.factories import ACTOR, Fleet
from tests.support.servers import TemporalServer
from workers.api_keys.issuing import revoke_api_key
from workers.installation.worker import PLACEHOLDER, commands_for
from workers.models import ApiKey, Refusal, Worker, WorkerInstance, WorkerQueue
from workers.reports import first_boot

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")

HOSTILE = "</pre><script>alert(1)</script>{{ 7 * 7 }}\u202egnp"
STEPS = ("key", "start", "heartbeat", "polling")


@pytest.fixture
def fleet(db: None) -> Fleet:
    person(is_staff=True, is_superuser=True)
    return fresh_fleet()


@pytest.fixture
def client(fleet: Fleet) -> Client:
    return signed_in()


def create(client: Client, fleet: Fleet, **fields: Any) -> Any:
    data = {"queue": fleet.queue.pk, "name": "new", "is_key_issued": "on", "days": "30", **fields}
    return client.post(url(Worker, "add"), {name: value for name, value in data.items() if value is not None})


def key_on(response: HttpResponse) -> str:
    (shown,) = re.findall(r'id="api-key">([^<]+)<', response.content.decode())
    return str(shown)


def texts_of(fleet: Fleet, api_key: str = PLACEHOLDER) -> dict[str, str]:
    return {command.kind: command.text for command in commands_for(fleet.worker, api_key)}


def steps(client: Client, fleet: Fleet) -> list[str]:
    """The states of the checklist's steps."""
    return list(told(client, fleet).values())


def told(client: Client, fleet: Fleet) -> dict[str, str]:
    text = page(client, "boot_steps", fleet)
    return dict(re.findall(r'data-step="(\w+)" data-state="([^"]+)"', text))


def page(client: Client, name: str, fleet: Fleet) -> str:
    response = client.get(url(Worker, name, fleet.worker.pk))
    assert response.status_code == 200
    return unescape(response.content.decode())


def heartbeat(fleet: Fleet) -> None:
    path, headers = f"/api/v1/workers/{fleet.worker.pk}/heartbeat", {"Authorization": f"Bearer {fleet.token}"}
    assert Client().post(path, b"{}", "application/json", headers=headers).status_code == 204


# --- One page makes it -------------------------------------------------------------------------------------------------------


def test_a_worker_and_its_key_are_made_and_the_key_starts_it(fleet: Fleet, client: Client) -> None:
    response = create(client, fleet, labels="gpu, blue", description="In the rack")
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    worker = Worker.objects.get(name="new")
    assert (worker.queue, worker.labels, worker.description) == (fleet.queue, "gpu, blue", "In the rack")
    key = ApiKey.objects.get(worker=worker)
    assert (key.scope, key.name, key.created_by) == ("worker", "new", "user:ada")
    assert key.expires_at
    assert key.expires_at - key.created_at == timedelta(days=30)
    assert start(fleet, token=key_on(response), worker_id=worker.pk).status_code == 200


def test_both_are_on_record(fleet: Fleet, client: Client) -> None:
    create(client, fleet)
    events = AuditEvent.objects.filter(actor="user:ada").values_list("action", "object_name")
    assert set(events) == {("worker.created", f"{fleet.organization.id}/new"), ("api_key.issued", "new")}


def test_the_form_offers_a_key_for_90_days(client: Client) -> None:
    form = client.get(url(Worker, "add")).context["adminform"].form
    assert (form["is_key_issued"].initial, form["days"].initial) == (True, 90)
    assert set(form.fields) == {"queue", "name", "description", "labels", "is_key_issued", "days"}


def test_the_key_is_shown_once(fleet: Fleet, client: Client) -> None:
    key = key_on(create(client, fleet))
    worker = Worker.objects.get(name="new")
    for name in ("boot", "boot_steps", "change", "history"):
        assert key not in client.get(url(Worker, name, worker.pk)).content.decode()
    assert key not in str(everything())
    assert key not in str(client.session.items())
    assert "already exists" in errors_of(create(client, fleet))
    assert ApiKey.objects.filter(worker=worker).count() == 1


def test_a_worker_may_be_made_without_a_key(fleet: Fleet, client: Client) -> None:
    covering = factories.issue_key(fleet.queue, name="of-the-queue").row
    factories.issue_key(factories.create_queue(fleet.environment, "other"), name="of-another-queue")
    revoke_api_key(
        factories.issue_key(fleet.queue, name="revoked-key").row.pk, reason="x", actor=ACTOR, now=timezone.now()
    )
    response = create(client, fleet, is_key_issued=None, days="")
    text = response.content.decode()
    assert not ApiKey.objects.filter(worker__name="new").exists()
    assert 'id="api-key"' not in text
    assert PLACEHOLDER in text
    assert url(ApiKey, "change", covering.pk) in text
    assert not {"of-another-queue", "revoked-key"} & set(re.findall(r"[a-z-]+", text))
    assert "no-store" in response["Cache-Control"]


def test_a_worker_that_no_key_covers_says_so(fleet: Fleet, client: Client) -> None:
    text = create(client, fleet, is_key_issued=None).content.decode()
    assert "None covers this worker yet" in text
    assert f"{url(ApiKey, 'add')}?worker={Worker.objects.get(name='new').pk}" in text


@pytest.mark.parametrize("days", ["", "0", "731", "-1", "abc", "9" * 400, "\x00"])
def test_an_odd_lifetime_is_explained_and_makes_nothing(fleet: Fleet, client: Client, days: str) -> None:
    before = everything()
    response = create(client, fleet, days=days)
    assert errors_of(response)
    assert list(response.context["adminform"].form.errors) == ["days"]
    assert everything() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", HOSTILE), ("name", "a" * 64), ("name", "\x00"), ("labels", "a\nb"), ("description", "x" * 301)],
)
def test_odd_texts_are_explained_and_make_nothing(fleet: Fleet, client: Client, field: str, value: str) -> None:
    before = everything()
    response = create(client, fleet, **{field: value})
    assert errors_of(response)
    assert field in response.context["adminform"].form.errors
    assert "<script>alert(1)" not in response.content.decode()
    assert everything() == before


def test_hostile_words_stay_words(fleet: Fleet, client: Client) -> None:
    text = create(client, fleet, labels=HOSTILE, description=HOSTILE).content.decode()
    assert "<script>alert(1)" not in text
    ApiKey.objects.filter(worker__name="new").update(name=HOSTILE)
    fleet.worker = Worker.objects.get(name="new")
    assert start(fleet).status_code == 403
    for name in ("boot", "boot_steps"):
        assert "<script>alert(1)" not in client.get(url(Worker, name, fleet.worker.pk)).content.decode()


def test_in_a_popup_a_worker_is_made_for_the_form_that_opened_it(fleet: Fleet, client: Client) -> None:
    form = client.get(url(Worker, "add"), {"_popup": "1"})
    assert 'name="is_key_issued"' not in form.content.decode()
    response = create(client, fleet, _popup="1")
    assert response.status_code == 200
    assert str(Worker.objects.get(name="new").pk) in response.content.decode()
    assert not ApiKey.objects.filter(worker__name="new").exists()


def test_making_one_costs_a_fixed_number_of_statements(
    fleet: Fleet, client: Client, django_assert_max_num_queries: Any
) -> None:
    factories.issue_key(fleet.organization)
    with django_assert_max_num_queries(30):
        create(client, fleet)


# --- Who may -----------------------------------------------------------------------------------------------------------------


def test_an_operator_makes_workers_in_their_own_organization_only(fleet: Fleet) -> None:
    foreign = factories.create_fleet()
    user = member(fleet.organization, Role.OPERATOR)
    Membership.objects.create(organization=foreign.organization, user=user, role=Role.VIEWER)
    client = signed_in(user)
    before = everything()
    assert "queue" in create(client, fleet, queue=foreign.queue.pk).context["adminform"].form.errors
    assert everything() == before
    response = create(client, fleet)
    assert start(fleet, token=key_on(response), worker_id=Worker.objects.get(name="new").pk).status_code == 200


def test_a_viewer_makes_none_but_sees_how_a_boot_goes(fleet: Fleet) -> None:
    client = signed_in(member(fleet.organization, Role.VIEWER))
    before = everything()
    assert client.get(url(Worker, "add")).status_code == 403
    assert create(client, fleet).status_code == 403
    assert everything() == before
    assert steps(client, fleet) == ["Waiting"] * 4


@pytest.mark.parametrize("name", ["boot", "boot_steps"])
def test_a_boot_is_not_shown_to_others(fleet: Fleet, name: str) -> None:
    foreign = factories.create_fleet()
    client = signed_in(member(foreign.organization, Role.ADMINISTRATOR))
    addresses = [url(Worker, name, identifier) for identifier in (fleet.worker.pk, uuid4())]
    assert [client.get(address).status_code for address in addresses] == [404, 404]
    assert Client().get(addresses[0]).status_code == 302
    nobody = signed_in(person("nobody", is_staff=True))
    assert nobody.get(addresses[0]).status_code in {403, 404}
    assert client.post(url(Worker, name, foreign.worker.pk)).status_code == 405


def test_looking_at_a_boot_changes_nothing(fleet: Fleet, client: Client) -> None:
    start(fleet)
    before = everything()
    for name in ("boot", "boot_steps"):
        page(client, name, fleet)
    assert everything() == before


# --- The texts ---------------------------------------------------------------------------------------------------------------


def test_each_text_names_the_worker_and_the_control_plane(fleet: Fleet, settings: Settings) -> None:
    settings.CONTROL_PLANE_URL = "https://controlplane.example.com/base"
    settings.IS_LOCAL = False
    texts = texts_of(fleet, fleet.token)
    assert list(texts) == ["shell", "docker", "systemd", "kubernetes", "python"]
    for kind, text in texts.items():
        assert str(fleet.worker.pk) in text
        assert "https://controlplane.example.com/base" in text
        assert (fleet.token in text) == (kind != "python")
        assert "network host" not in text


def test_every_text_has_a_button_that_copies_it(fleet: Fleet, client: Client) -> None:
    text = create(client, fleet).content.decode()
    assert set(re.findall(r'data-copy="([^"]+)"', text)) == {
        "api-key",
        *(f"command-{kind}" for kind in ("shell", "docker", "systemd", "kubernetes", "python")),
    }
    for identifier in re.findall(r'data-copy="([^"]+)"', text):
        assert text.count(f'id="{identifier}"') == 1


@pytest.mark.parametrize("kind", ["shell", "docker", "systemd"])
@pytest.mark.parametrize("name", ["w", "a" * 63, f"{'a' * 29}-{'b' * 20}"])
def test_the_shell_s_texts_are_shell(fleet: Fleet, kind: str, name: str) -> None:
    fleet.worker.name = name
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n"], input=texts_of(fleet, fleet.token)[kind], text=True, check=True)  # noqa: S603


@pytest.mark.parametrize("kind", ["shell", "docker", "systemd"])
def test_a_shell_s_history_takes_no_part_of_a_pasted_text_for_its_own(fleet: Fleet, kind: str) -> None:
    assert not re.search(r"![^\s=(]", texts_of(fleet, fleet.token)[kind])


def test_a_url_with_odd_characters_stays_one_word(fleet: Fleet, settings: Settings) -> None:
    settings.CONTROL_PLANE_URL = "https://a.example/$(touch x)';\"\\"
    script = texts_of(fleet)["shell"].partition("\n\n")[0] + '\nprintf %s "$CONTROL_PLANE_URL"'
    done = subprocess.run(["sh"], input=script, text=True, check=True, capture_output=True)  # noqa: S607
    assert done.stdout == settings.CONTROL_PLANE_URL
    assert ast.parse(texts_of(fleet)["python"])
    (_, deployment) = yaml.safe_load_all(texts_of(fleet)["kubernetes"])
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"][0] == {"name": "CONTROL_PLANE_URL", "value": settings.CONTROL_PLANE_URL}


def heredocs(text: str) -> dict[str, str]:
    """The files that a shell text writes."""
    return dict(re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE))


def test_the_service_keeps_its_key_in_a_file_of_its_own(fleet: Fleet) -> None:
    text = texts_of(fleet, fleet.token)["systemd"]
    files = {name.rpartition(".")[2]: (name, content) for name, content in heredocs(text).items()}
    assert set(files) == {"env", "py", "service"}
    environment, content = files["env"]
    assert f"install -m 0600 /dev/null {environment}\n" in text
    assert f"API_KEY={fleet.token}" in content.splitlines()
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # as configparser documents it
    unit.read_string(files["service"][1])
    assert unit["Service"]["EnvironmentFile"] == environment
    assert unit["Service"]["ExecStart"] == f"/usr/bin/python3 -u {files['py'][0]}"
    assert unit["Install"]["WantedBy"] == "multi-user.target"
    assert fleet.token not in files["service"][1] + files["py"][1]
    assert ast.parse(files["py"][1])
    assert files["service"][0].rpartition("/")[2] in text.splitlines()[-1]


def test_the_cluster_s_text_is_a_secret_and_a_deployment(fleet: Fleet) -> None:
    fleet.worker.name = "a" * 63
    text = texts_of(fleet, fleet.token)["kubernetes"]
    secret, deployment = yaml.safe_load_all(text)
    assert (secret["kind"], secret["stringData"]) == ("Secret", {"API_KEY": fleet.token})
    assert (deployment["kind"], deployment["spec"]["replicas"]) == ("Deployment", 1)
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    name = deployment["metadata"]["name"]
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name)
    assert deployment["spec"]["selector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": secret["metadata"]["name"], "key": "API_KEY"}
    assert container["args"] == [texts_of(fleet)["python"]]
    assert text.count(fleet.token) == 1


def test_the_key_is_in_no_list_of_processes(fleet: Fleet) -> None:
    texts = texts_of(fleet, fleet.token)
    for kind in ("shell", "docker"):
        (line,) = [line for line in texts[kind].splitlines() if fleet.token in line]
        assert line == f"export API_KEY={fleet.token}"
        assert '-H "Authorization' not in texts[kind]


# --- The checklist -----------------------------------------------------------------------------------------------------------


def test_a_boot_goes_from_waiting_to_its_first_heartbeat(fleet: Fleet, client: Client) -> None:
    assert told(client, fleet) == dict.fromkeys(STEPS, "Waiting")
    assert start(fleet).status_code == 200
    assert steps(client, fleet) == ["Done", "Done", "Waiting", "Waiting"]
    text = page(client, "boot_steps", fleet)
    assert f">{fleet.api_key.name}<" in text
    assert "127.0.0.1" in text
    assert WorkerInstance.objects.get().configuration_revision in text
    heartbeat(fleet)
    assert steps(client, fleet)[:3] == ["Done"] * 3


def test_what_cannot_be_seen_from_here_is_said_and_ends_the_waiting(fleet: Fleet, client: Client) -> None:
    type(fleet.temporal).objects.update(host="127.0.0.1:1", is_tls_enabled=False)
    start(fleet)
    heartbeat(fleet)
    text = page(client, "boot_steps", fleet)
    assert told(client, fleet)["polling"] == "Cannot tell"
    assert "Not to be seen from the control plane: Nothing listens at 127.0.0.1:1." in text
    assert "data-final" not in text
    assert fleet.temporal_secret not in text
    WorkerInstance.objects.update(started_at=timezone.now() - timedelta(minutes=3))
    assert "data-final" in page(client, "boot_steps", fleet)


def test_the_checklist_costs_a_fixed_number_of_statements(
    fleet: Fleet, client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    start(fleet)
    page(client, "boot_steps", fleet)
    # The session, the person, the worker, its process, refusals of three kinds, the key.
    with django_assert_num_queries(8):
        page(client, "boot_steps", fleet)


def expired(fleet: Fleet) -> None:
    ApiKey.objects.update(expires_at=timezone.now())


def revoked(fleet: Fleet) -> None:
    revoke_api_key(fleet.api_key.pk, reason="leaked", actor=ACTOR, now=timezone.now())


def of_another_worker(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(factories.create_worker(fleet.queue, "other"))


def of_another_organization(fleet: Fleet) -> None:
    fleet.token = factories.create_fleet().token


def of_the_queue_but_incomplete(fleet: Fleet) -> None:
    fleet.token = factories.issue_token(fleet.queue)
    factories.point(fleet.organization, litellm_connection=None)


def disabled(fleet: Fleet) -> None:
    Worker.objects.update(is_disabled=True)


def queue_draining(fleet: Fleet) -> None:
    WorkerQueue.objects.update(is_draining=True)


@pytest.mark.parametrize(
    ("arrange", "states", "reason"),
    [
        (expired, ["Failed", "Waiting"], "This API key has expired."),
        (revoked, ["Failed", "Waiting"], "This API key is revoked."),
        (of_another_worker, ["Failed", "Waiting"], "The API key's scope does not cover this worker."),
        (of_another_organization, ["Failed", "Waiting"], "A key of another organization was used."),
        (of_the_queue_but_incomplete, ["Done", "Failed"], "no LiteLLM connection at any of these levels: worker, "),
        (disabled, ["Done", "Failed"], "This worker is disabled."),
        (queue_draining, ["Done", "Failed"], "This worker's queue is draining: nothing new starts."),
    ],
)
def test_a_failed_step_says_why(
    fleet: Fleet, client: Client, arrange: Callable[[Fleet], None], states: list[str], reason: str
) -> None:
    arrange(fleet)
    assert start(fleet).status_code >= 400
    assert steps(client, fleet) == [*states, "Waiting", "Waiting"]
    text = page(client, "boot_steps", fleet)
    assert reason in text
    assert "data-final" not in text
    for secret in (fleet.token, fleet.temporal_secret, fleet.litellm_secret):
        assert secret not in text


def test_a_refused_body_is_told(fleet: Fleet, client: Client) -> None:
    start(fleet, b"{")
    assert steps(client, fleet) == ["Done", "Failed", "Waiting", "Waiting"]
    assert "The body was refused: JSON decode error" in page(client, "boot_steps", fleet)


def test_of_another_organization_s_key_no_more_is_told(fleet: Fleet, client: Client) -> None:
    foreign = factories.create_fleet()
    ApiKey.objects.filter(pk=foreign.api_key.pk).update(name="their-secret-name")
    start(fleet, token=foreign.token, REMOTE_ADDR="127.0.0.77")
    text = page(client, "boot_steps", fleet)
    for private in ("their-secret-name", str(foreign.api_key.pk), foreign.organization.id, "127.0.0.77"):
        assert private not in text


def test_another_organization_s_key_says_nothing_of_a_process_that_lives(fleet: Fleet, client: Client) -> None:
    start(fleet)
    start(fleet, token=factories.create_fleet().token)
    assert steps(client, fleet)[:2] == ["Done", "Done"]
    WorkerInstance.objects.update(stopped_at=timezone.now())
    assert steps(client, fleet)[0] == "Failed"


def test_the_worker_s_key_with_a_wrong_id_is_told(fleet: Fleet, client: Client) -> None:
    for worker_id in (uuid4(), "nonsense", factories.create_worker(fleet.queue, "other").pk):
        Refusal.objects.all().delete()
        cache.clear()
        start(fleet, worker_id=worker_id)
        assert steps(client, fleet)[:2] == ["Done", "Failed"]
        assert "is the worker's id right?" in page(client, "boot_steps", fleet)


def test_what_came_last_counts(fleet: Fleet, client: Client) -> None:
    start(fleet, b"{")
    start(fleet)
    assert steps(client, fleet)[:2] == ["Done", "Done"]
    WorkerQueue.objects.update(duplicate_policy="reject")
    assert start(fleet).status_code == 409
    assert steps(client, fleet) == ["Done", "Failed", "Waiting", "Waiting"]
    assert "Another process of this worker is online" in page(client, "boot_steps", fleet)


def test_a_process_that_never_beat_is_told(fleet: Fleet, client: Client) -> None:
    start(fleet)
    long_ago = timezone.now() - timedelta(hours=1)
    WorkerInstance.objects.update(started_at=long_ago, last_heartbeat_at=long_ago)
    assert steps(client, fleet) == ["Done", "Done", "Failed", "Waiting"]
    WorkerInstance.objects.update(stopped_at=long_ago, stop_reason=HOSTILE)
    assert "The process ended before its first heartbeat." in page(client, "boot_steps", fleet)


def test_a_process_that_has_ended_polls_nothing(fleet: Fleet, client: Client) -> None:
    start(fleet)
    heartbeat(fleet)
    WorkerInstance.objects.update(stopped_at=timezone.now(), stop_reason="error")
    assert steps(client, fleet) == ["Done", "Done", "Done", "Failed"]


@pytest.mark.parametrize("is_heard_of", [True, False])
def test_a_process_that_ended_well_is_done(fleet: Fleet, client: Client, is_heard_of: bool) -> None:
    start(fleet)
    if is_heard_of:
        heartbeat(fleet)
    WorkerInstance.objects.update(stopped_at=timezone.now(), stop_reason="finished", exit_code=0)
    assert steps(client, fleet)[:3] == ["Done", "Done", "Done"]
    text = page(client, "boot_steps", fleet)
    assert "The process has ended, as it was meant to." in text
    assert "data-final" not in text  # its next start is shown


@pytest.mark.parametrize(
    "ending",
    [
        {"stop_reason": "error"},
        {"stop_reason": "shutdown", "exit_code": 1},
        {"stop_reason": "shutdown", "error_message": "ValueError"},
        {"is_replaced": True},
        {"is_superseded": True},
    ],
)
def test_an_ending_that_is_none_of_a_well_one_is_told_from_it(ending: dict[str, Any]) -> None:
    assert WorkerInstance(stopped_at=timezone.now(), stop_reason="finished", exit_code=0).has_ended_well
    assert not WorkerInstance(**{"stopped_at": timezone.now(), **ending}).has_ended_well
    assert not WorkerInstance().has_ended_well


# --- With a real Temporal ----------------------------------------------------------------------------------------------------

POLLS = """
import asyncio, sys
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

@activity.defn
async def work() -> None: ...

async def main() -> None:
    client = await Client.connect(sys.argv[1])
    async with Worker(client, task_queue=sys.argv[2], activities=[work]):
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def test_a_process_that_polls_is_told_from_others(
    fleet: Fleet, client: Client, temporal_server: TemporalServer
) -> None:
    host, namespace = temporal_server.host, temporal_server.namespace
    type(fleet.temporal).objects.update(host=host, namespace=namespace, is_tls_enabled=False)
    command = [sys.executable, "-c", POLLS, host, fleet.queue.task_queue_name]
    start(fleet)
    heartbeat(fleet)
    assert f"Nobody polls {fleet.queue.task_queue_name} yet." in page(client, "boot_steps", fleet)
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # noqa: S603
        try:
            assert polling_becomes(client, fleet, "Cannot tell")
            assert "1 process polls" in page(client, "boot_steps", fleet)
            start(fleet, {"system_info": {"hostname": socket.gethostname(), "pid": process.pid}})
            heartbeat(fleet)
            assert polling_becomes(client, fleet, "Done")
            assert "data-final" in page(client, "boot_steps", fleet)
        finally:
            process.terminate()


def polling_becomes(client: Client, fleet: Fleet, state: str) -> bool:
    deadline = time.monotonic() + 20
    while (is_so := told(client, fleet)["polling"] == state) is False and time.monotonic() < deadline:
        time.sleep(0.2)
        first_boot.answers.forget()
        counts.forget()
    return is_so
