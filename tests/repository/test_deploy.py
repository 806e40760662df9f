"""What `deploy/` ships: linted by those who will read it, and its commands run in a plain directory as they are written."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import get_commands, load_command_class
from django.urls import resolve

from tests.support.databases import fresh_database
from tests.support.processes import ROOT, ServerProcess, free_port
from tests.support.proxies import NAME

DEPLOY = ROOT / "deploy"
UNITS = ("controlplane@.service", "controlplane-migrate.service")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
APPLICATIONS = [COMPOSE["services"][name] for name in ("migrate", "service")]
#: Every name that the settings read, as it stands in the code.
SETTINGS = {
    name
    for path in (ROOT / "controlplane").rglob("*.py")
    for name in re.findall(r'(?:env\.\w+|environ\.get|integer|text)\(\s*["\']([A-Z_]+)["\']', path.read_text())
}
SECRETS = ("SECRET_KEY", "ENCRYPTION_KEYS", "API_KEY_SIGNING_KEYS", "DATABASE_URL")


def of_kind(kind: str) -> dict[str, Any]:
    found = [document for document in KUBERNETES if document["kind"] == kind]
    assert len(found) == 1
    return found[0]


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions in order."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in lines]


def instruction(name: str) -> str:
    """The last one of this name, which is the one that counts."""
    return [value for key, value in dockerfile() if key == name][-1]


def pod_specs() -> list[dict[str, Any]]:
    return [of_kind(kind)["spec"]["template"]["spec"] for kind in ("Job", "Deployment")]


def containers() -> list[dict[str, Any]]:
    return [container for pod in pod_specs() for container in pod["containers"]]


# --- Commands and settings -----------------------------------------------------------------------------------------------


def all_commands() -> list[str]:
    of_units = [re.findall(r"manage\.py (.*)", (DEPLOY / unit).read_text())[0].split() for unit in UNITS]
    of_compose = [service["command"] for service in APPLICATIONS]
    of_kubernetes = [container["args"] for container in containers() if "args" in container]
    commands = [*of_units, *of_compose, *of_kubernetes, json.loads(instruction("CMD"))]
    return sorted({" ".join(command) for command in commands})


@pytest.mark.parametrize("command", all_commands())
def test_every_command_that_is_run_exists_and_takes_its_arguments(command: str) -> None:
    name, *arguments = command.split()
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    assert parser.parse_args(arguments)


def test_every_setting_that_is_given_is_read() -> None:
    lines = (DEPLOY / "environment").read_text().splitlines()
    given = [
        *(line.partition("=")[0] for line in lines if not line.startswith("#")),
        *(name for service in APPLICATIONS for name in service["environment"]),
        *of_kind("ConfigMap")["data"],
        *re.findall(r"([A-Z_]+)=", " ".join(re.findall("^Environment=(.*)", unit_texts(), flags=re.MULTILINE))),
    ]
    assert len(given) > 15
    unread = [name for name in given if not {name, name.removesuffix("_FILE")} & SETTINGS]
    assert set(unread) == {"PYTHONDONTWRITEBYTECODE"}


def test_the_secrets_are_files_everywhere() -> None:
    for service in APPLICATIONS:
        paths = [service["environment"][f"{name}_FILE"] for name in SECRETS]
        assert paths == [f"/run/secrets/{name}" for name in service["secrets"]]
        assert set(service["secrets"]) <= set(COMPOSE["secrets"])
    data = of_kind("ConfigMap")["data"]
    mounts = {mount["mountPath"] for container in containers() for mount in container["volumeMounts"]}
    assert {str(Path(data[f"{name}_FILE"]).parent) for name in SECRETS} <= mounts
    environment = (DEPLOY / "environment").read_text()
    assert all(f"\n{name}_FILE=/etc/controlplane/secrets/{name.lower()}\n" in environment for name in SECRETS)


def test_all_of_them_serve_under_the_name_that_the_proxy_answers_to() -> None:
    urls = [service["environment"]["CONTROL_PLANE_URL"] for service in APPLICATIONS]
    urls += [of_kind("ConfigMap")["data"]["CONTROL_PLANE_URL"]]
    assert {*urls} == {f"https://{NAME}"}
    assert f"CONTROL_PLANE_URL=https://{NAME}\n" in (DEPLOY / "environment").read_text()


# --- systemd -------------------------------------------------------------------------------------------------------------

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not on this machine")


def unit_texts() -> str:
    return "\n".join((DEPLOY / unit).read_text() for unit in UNITS)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """The units as files that name this project instead of /opt/controlplane; systemd looks whether programs exist."""
    paths = [tmp_path / unit.replace("@", "@8000") for unit in UNITS]
    for unit, path in zip(UNITS, paths, strict=True):
        path.write_text((DEPLOY / unit).read_text().replace("/opt/controlplane", str(ROOT)))
    return [str(path) for path in paths]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [shutil.which("systemd-analyze") or "", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


@needs_systemd
def test_systemd_has_nothing_to_say_of_the_units(units: list[str]) -> None:
    done = analyze("verify", "--man=no", *units)
    complaints = [line for line in done.stderr.splitlines() if any(Path(unit).name in line for unit in units)]
    assert complaints == []


@needs_systemd
def test_systemd_finds_the_units_hardly_exposed(units: list[str]) -> None:
    for unit in units:
        done = analyze("security", "--offline=yes", "--no-pager", "--threshold=20", unit)  # 2.0 of 10
        assert done.returncode == 0, done.stdout[-200:] + done.stderr


# --- The image, in a plain directory -------------------------------------------------------------------------------------


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What the Dockerfile copies, beside the packages that are installed already."""
    root = tmp_path / "image"
    root.mkdir()
    for name, arguments in dockerfile():
        if name == "COPY" and "--from" not in arguments:
            source, target = arguments.split()
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, root / target if target != "./" else root / source)
    (root / ".venv").symlink_to(sys.prefix)
    return root


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The compose file's environment, its secrets in files of this test, on a database without tables."""
    given = dict(APPLICATIONS[1]["environment"])
    for path, line in (("database_url", fresh_database("deploy")), *generated_keys().items()):
        (tmp_path / path).write_text(f"{line}\n")
        given[f"{path.upper()}_FILE"] = str(tmp_path / path)
    return {**given, "PORT": str(free_port()), "PYTHONDONTWRITEBYTECODE": "1"}


def generated_keys() -> dict[str, str]:
    return {
        "secret_key": "k" * 25 + "0123456789" * 3,
        "encryption_keys": f"ek-1:{'A' * 43}",
        "api_key_signing_keys": f"acp-1:{'B' * 42}A",
    }


def files_below(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if ".venv" not in path.parts and "__pycache__" not in path.parts}


def test_the_image_serves_and_is_healthy_and_writes_nothing(
    image: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    before = files_below(image)
    command = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
    probe = json.loads(instruction("HEALTHCHECK").partition("CMD ")[2])
    probe = [part.replace(":8000/", f":{environ['PORT']}/") for part in probe]

    def is_healthy() -> bool:
        return subprocess.run(probe, cwd=image, env=environ, capture_output=True, check=False).returncode == 0  # noqa: S603

    assert not is_healthy()
    process = ServerProcess(command, log=tmp_path / "image-log", cwd=image, env=environ)
    try:
        process.wait_until(is_healthy)
        assert answer_to(environ["PORT"], "/livez") == (200, {"status": "alive"})
        status, body = answer_to(environ["PORT"], "/readyz")
        assert (status, body["problems"]) == (503, ["Migrations are pending: run python manage.py migrate."])
        assert files_below(image) == before
    finally:
        process.stop()


def answer_to(port: str, path: str) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", int(port), timeout=30)
    connection.request("GET", path)
    response = connection.getresponse()
    status, body = response.status, json.loads(response.read())
    connection.close()
    return status, body


def test_the_image_holds_the_product_and_nothing_else() -> None:
    copied = {value.split()[0] for name, value in dockerfile() if name == "COPY" and "--from" not in value}
    assert copied == {
        "requirements.txt",
        "manage.py",
        "controlplane",
        "workers",
        "environments",
        "templates",
        "examples",
    }
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_the_image_installs_what_is_locked_and_runs_as_nobody_in_particular() -> None:
    installs = [value for name, value in dockerfile() if name == "RUN" and "pip install" in value]
    assert [shlex.split(value)[-3:] for value in installs] == [["--require-hashes", "-r", "requirements.txt"]]
    assert instruction("USER") == "10001:10001"
    python = (ROOT / ".python-version").read_text().strip()
    assert {value.split()[0] for name, value in dockerfile() if name == "FROM"} == {f"python:{python}-slim-bookworm"}


# --- Compose and Kubernetes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_composed_container_is_locked_down(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "build" in service or service["user"] not in {"", "root", "0", "0:0"}
    assert "privileged" not in service
    assert set(service.get("networks", ())) <= set(COMPOSE["networks"])
    assert set(service.get("depends_on", ())) <= set(COMPOSE["services"])


def test_nothing_but_the_proxy_is_reached_from_outside_the_composition() -> None:
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["service"]
    assert COMPOSE["services"]["service"]["ports"] == ["443:443", "80:80"]
    assert COMPOSE["services"]["proxy"]["network_mode"] == "service:service"
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    sources = [volume.split(":")[0] for volume in COMPOSE["services"]["proxy"]["volumes"]]
    assert sources == ["./nginx.conf", "./tls"]


@pytest.mark.parametrize("container", containers(), ids=lambda container: container["name"])
def test_every_container_of_a_pod_is_locked_down(container: dict[str, Any]) -> None:
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert "memory" in container["resources"]["limits"]


def test_every_pod_runs_without_root_and_without_a_token_of_the_cluster() -> None:
    for pod in pod_specs():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_probes_ask_for_what_is_served_on_a_port_that_is_named() -> None:
    service, proxy = of_kind("Deployment")["spec"]["template"]["spec"]["containers"]
    probes = {kind: service[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/readyz",
    }
    assert all(resolve(probe["path"]) for probe in probes.values())
    assert {probe["port"] for probe in probes.values()} == {service["ports"][0]["name"]}
    assert of_kind("Service")["spec"]["ports"][0]["targetPort"] == proxy["ports"][0]["name"]
    assert of_kind("NetworkPolicy")["spec"]["ingress"][0]["ports"][0]["port"] == proxy["ports"][0]["name"]


def test_everything_selects_the_pods_of_the_service() -> None:
    labels = of_kind("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [of_kind(kind)["spec"]["selector"]["matchLabels"] for kind in ("Deployment", "PodDisruptionBudget")]
    selectors += [
        of_kind("Service")["spec"]["selector"],
        of_kind("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ]
    assert selectors == [labels] * 4
    assert of_kind("Job")["spec"]["template"]["metadata"]["labels"] != labels


def test_no_secret_is_in_what_is_applied() -> None:
    assert "Secret" not in {document["kind"] for document in KUBERNETES}


# --- The guide -----------------------------------------------------------------------------------------------------------

GUIDE = (ROOT / "docs" / "operate" / "deploy.md").read_text()


def test_the_guide_names_only_files_that_are_there_and_leaves_none_out() -> None:
    named = set(re.findall(r"deploy/([\w@./-]*\w)", GUIDE))
    assert {name.split("/")[0] for name in named} - {"secrets", "tls"} == {
        path.name for path in DEPLOY.iterdir() if path.name != "Dockerfile.dockerignore" and path.is_file()
    }


def test_the_guide_names_only_commands_that_are_there() -> None:
    named = re.findall(r"(?:^controlplane|manage\.py) ([a-z_]+)", GUIDE, flags=re.MULTILINE)
    assert {"migrate", "createsuperuser", "generate_key", "check", "dumpdata", "loaddata"} <= set(named)
    assert set(named) <= set(get_commands())
