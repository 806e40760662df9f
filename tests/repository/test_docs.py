"""The pages for people hold: links lead somewhere, names of files, settings and commands exist, and none is left out."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from django.core.management import get_commands, load_command_class

from tests.support.processes import ROOT

pytestmark = pytest.mark.once

OUR_PACKAGES = ("controlplane", "workers", "environments")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
#: A page as code, deployment files and tests name it.
PAGE = re.compile(r"\b((?:docs/[\w./-]+|README|CONTRIBUTING|SECURITY|CHANGELOG)\.md)\b")
#: A file or folder of ours in a page. What has a placeholder or belongs to an installation is none.
PLACE = re.compile(r"`((?:controlplane|workers|environments|templates|tests|deploy|examples|docs)/[\w./-]*)`")
#: A command with its arguments, in a line of its own or within a sentence; a line may go on in the next.
COMMAND = re.compile(r"(?:manage\.py |^controlplane |`)([a-z_]+)((?: (?:[^`\n|<\\]|\\\n)*)?)", re.MULTILINE)
#: Every name that the settings read, as it stands in the code.
SETTING = re.compile(r'(?:env\.\w+|environ\.get|boolean|integer|text)\(\s*["\']([A-Z_]+)["\']')
#: Read by what is not in that form, or by others' code.
MORE_SETTINGS = {"SSL_CERT_FILE", "OTEL_EXPORTER_OTLP_ENDPOINT"} | {
    f"OIDC_{n}" for n in ("SERVER_URL", "CLIENT_ID", "CLIENT_SECRET")
}
MOST_PICTURE_BYTES = 150_000


def tracked() -> list[Path]:
    """Every file of the project, whether or not it is committed yet."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S603  # our own
    return [path for name in listed.splitlines() if (path := ROOT / name).is_file()]


FILES = tracked()
PAGES = [path for path in FILES if path.suffix == ".md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings: lower case, without punctuation, dashes for blanks."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


# --- Links ---------------------------------------------------------------------------------------------------------------


@each_page
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(FENCE.sub("", page.read_text())):
        if link.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@each_page
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        pytest.skip("tells of what was there")
    named = set(PLACE.findall(page.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_page_that_code_and_deployment_name_is_there() -> None:
    sources = [path for path in FILES if path.suffix not in {".md", ".png", ".svg", ".txt"}]
    named = {(name, path) for path in sources for name in PAGE.findall(path.read_text(errors="replace"))}
    assert len(named) > 15
    assert {(name, str(path)) for name, path in named if not (ROOT / name).exists()} == set()


def test_the_index_leads_to_every_page() -> None:
    folder = ROOT / "docs"
    linked = {(folder / link.partition("#")[0]).resolve() for link in LINK.findall((folder / "README.md").read_text())}
    decisions = folder / "design" / "decisions"
    linked |= {(decisions / link).resolve() for link in LINK.findall((decisions / "README.md").read_text())}
    assert {page for page in PAGES if page.is_relative_to(folder)} - {folder / "README.md"} <= linked
    assert {ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")} <= linked


def test_every_picture_is_shown_and_small() -> None:
    pictures = {path for path in FILES if path.is_relative_to(ROOT / "docs" / "images")}
    shown = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text())}
    assert pictures
    assert pictures <= shown
    assert {path.name for path in pictures if path.stat().st_size > MOST_PICTURE_BYTES} == set()


# --- Where a change goes -------------------------------------------------------------------------------------------------


def test_ten_given_changes_have_a_room_and_a_test_that_are_there() -> None:
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## Where a change goes")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!You want)(\w.+?) \| `(.+?)` \| `(.+?)` \|$", section, re.MULTILINE)
    assert len({change for change, _, _ in rows}) == len(rows) == 10
    assert len({room for _, room, _ in rows}) == 10
    for change, room, test in rows:
        assert (ROOT / room / "__init__.py").is_file(), change
        assert (ROOT / test).is_file(), change


def test_architecture_has_each_room_and_no_other() -> None:
    folders = (path.parent for package in OUR_PACKAGES for path in (ROOT / package).glob("*/__init__.py"))
    rooms = {f"{path.parent.name}/{path.name}/" for path in folders if path.name != "migrations"}
    tables = re.findall(
        r"^\| *\d* *\| (`.*?`) \|", (ROOT / "docs" / "design" / "architecture.md").read_text(), re.MULTILINE
    )
    assert {room for cell in tables for room in re.findall(r"`([\w/]+/)`", cell)} == rooms


def test_each_decision_has_a_number_of_its_own_a_date_and_four_parts() -> None:
    records = sorted((ROOT / "docs" / "design" / "decisions").glob("0*.md"))
    assert len({record.name[:4] for record in records}) == len(records)
    for record in records:
        title, _, state, *_ = record.read_text().splitlines()
        assert title.startswith(f"# {record.name[:4]}. ")
        assert re.fullmatch(r"\d{4}-\d\d-\d\d, (accepted|replaced by .+)", state), record
        assert HEADING.findall(record.read_text())[1:] == ["Context", "Decision", "Consequences", "Alternatives"]


def test_the_hooks_before_a_commit_are_ours_and_need_no_network() -> None:
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    programs = {hook["entry"].split()[0] for hook in repository["hooks"]}
    assert programs == {".venv/bin/ruff", ".venv/bin/lint-imports"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(program.removeprefix(".venv/bin/") in makefile for program in programs)


# --- Settings and commands -----------------------------------------------------------------------------------------------


def test_the_table_of_settings_has_each_setting_and_no_other() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "controlplane").rglob("*.py"))
    table = re.findall(r"^\| (`[A-Z_`, ]+`) \|", (ROOT / "docs" / "operate" / "settings.md").read_text(), re.MULTILINE)
    told = {name for cell in table for name in re.findall("[A-Z_]+", cell)}
    read = set(SETTING.findall(code)) | MORE_SETTINGS
    assert told == read - {"DJANGO_SETTINGS_MODULE", "CONTROL_PLANE_ENV_FILE", "OTEL_SERVICE_NAME"}


def test_the_table_of_commands_has_each_command_of_ours() -> None:
    ours = {name for name, application in get_commands().items() if application in OUR_PACKAGES}
    table = (ROOT / "docs" / "operate" / "commands.md").read_text()
    told = {name for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for name in re.findall("[a-z_]+", row)}
    assert told == ours


@each_page
def test_every_command_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"manage\.py ([a-z_]+)", text)) | set(
        re.findall(r"^controlplane ([a-z_]+)", text, re.MULTILINE)
    )
    assert named <= set(get_commands()) | {"help", "version"}


@each_page
def test_every_option_that_a_page_names_is_one_of_its_command(page: Path) -> None:
    commands = get_commands()
    for name, arguments in COMMAND.findall(page.read_text()):
        if name in commands and (options := set(re.findall(r"(?<=\s)--[a-z-]+", arguments))):
            known = load_command_class(commands[name], name).create_parser("manage.py", name)._option_string_actions
            assert options <= set(known), name


@each_page
def test_every_target_of_make_that_a_page_names_is_there(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = {target for line in targets for target in line.split()}
    named = set(re.findall(r"(?:^|`|[A-Z]=\S+ )make ([a-z][a-z-]*)", page.read_text(), re.MULTILINE))
    assert named <= targets


# --- The changelog -------------------------------------------------------------------------------------------------------


def test_the_changelog_is_written_for_people() -> None:
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    for release in releases:
        assert re.match(r"Unreleased\n|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)\n", release), release[:40]
        parts = re.findall(r"^### (.+)$", release, re.MULTILINE)
        assert [part for part in ("Added", "Changed", "Fixed", "Upgrade") if part in parts] == parts
        assert release.startswith("Unreleased") or "Upgrade" in parts
