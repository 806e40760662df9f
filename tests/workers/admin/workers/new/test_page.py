"""A worker is made in one page, which shows the key once and texts that start it."""

import ast
import configparser
import re
import subprocess
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import yaml
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from environments.models import AuditEvent, Membership, Role
from tests.support import factories
from tests.support.calls import start
from tests.support.console import errors_of, everything, member, person, signed_in, url
from tests.support.factories import ACTOR, Fleet
from tests.support.new_workers import HOSTILE, page, steps
from workers.api_keys.issuing import revoke_api_key
from workers.installation.worker import PLACEHOLDER, commands_for
from workers.models import ApiKey, Worker

#: unfold 0.110 has not followed Django 6.1's new argument yet.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding get_action_choices")


def create(client: Client, fleet: Fleet, **fields: Any) -> Any:
    data = {"queue": fleet.queue.pk, "name": "new", "is_key_issued": "on", "days": "30", **fields}
    return client.post(url(Worker, "add"), {name: value for name, value in data.items() if value is not None})


def key_on(response: HttpResponse) -> str:
    (shown,) = re.findall(r'id="api-key">([^<]+)<', response.content.decode())
    return str(shown)


def texts_of(fleet: Fleet, api_key: str = PLACEHOLDER) -> dict[str, str]:
    return {command.kind: command.text for command in commands_for(fleet.worker, api_key)}


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
