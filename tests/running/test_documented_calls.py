"""The calls that docs/use/api.md shows do what it says, line by line, with curl."""

import json
import os
import re
import subprocess

import pytest

from tests.support.processes import ROOT
from tests.support.servers import ControlPlane

PAGE = ROOT / "docs" / "use" / "api.md"
FLEET = "organizations: [{id: documented, name: Documented}]"
#: The variable that a line begins with, and the one whose value it takes from the answer before.
VARIABLE = re.compile(r"export (\w+)=\.\.\. # the id in the answer")


def lines() -> list[str]:
    """The lines of the page's first shell block under *Managing*."""
    section = PAGE.read_text().partition("\n## Managing\n")[2]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert block is not None
    return block[1].splitlines()


@pytest.mark.once
def test_the_calls_of_a_manager_do_what_the_page_says(control_plane: ControlPlane) -> None:
    control_plane.manage("apply", "-", input=FLEET)
    key = control_plane.manage(
        "issue_api_key", "--organization", "documented", "--role", "manager", "--name", "docs"
    ).stdout.strip()
    environ = {**os.environ, "CONTROL_PLANE_URL": control_plane.url, "KUBIYA_API_KEY": key}
    answers: list[dict[str, object]] = []
    for line in lines()[1:]:
        if variable := VARIABLE.fullmatch(line):
            environ[variable[1]] = str(answers[-1]["id"])
            continue
        assert line.startswith("curl -sS ")
        command = line.replace("curl -sS", "curl -sS --fail-with-body", 1)
        done = subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, check=False)  # noqa: S603, S607
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        answers.append(json.loads(done.stdout) if done.stdout else {})
    assert len(answers) == 16
    made, queue, paused, read, command_of, outlook, worker, draining, *rest = answers
    key, revoked, keys, connection, organization, *deleted = rest
    assert (made["name"], queue["tags"], queue["settings"]) == ("staging", ["gpu"], {"region": "eu"})
    assert (paused["status"], paused["heartbeat_interval"], read) == ("paused", 30, paused)
    assert str(command_of["command"]).startswith("kubiya worker start --queue-id=")
    assert outlook["changes"] == {"heartbeat_interval": {"before": 30, "after": 15}}
    assert (worker["name"], draining["is_draining"]) == ("build-7", True)
    assert (str(key["api_key"]).count("."), revoked["state"]) == (2, "revoked")
    assert keys == {"items": [revoked], "next_cursor": None}
    assert organization["litellm_connection_id"] == connection["id"]
    assert "the secret" not in json.dumps(answers)
    assert deleted == [{}, {}, {}]
