"""What `make release` finds wrong, each in a repository of its own, and what CI makes of an advisory service's report."""

import json
import subprocess
import tarfile
from datetime import date
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.once

TODAY = date(2027, 3, 14)
CHANGELOG = (
    "# Changelog\n\n## 1.2.0 (2027-03-14)\n\n### Added\n\n- More.\n\n### Upgrade\n\nNothing.\n\n## 1.1.0 (2027-01-01)\n"
)


def script(name: str) -> Any:
    spec = spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release, advisories = script("release"), script("advisories")


class Repository:
    """A repository at a commit that is 1.2.0, with the release before it tagged."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.git("init", "--quiet")
        self.commit("CHANGELOG.md", "# Changelog\n")
        self.git("tag", "v1.1.0")
        self.commit("CHANGELOG.md", CHANGELOG)

    def git(self, *arguments: str) -> None:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", *arguments]
        subprocess.run(command, cwd=self.root, check=True, capture_output=True)  # noqa: S603

    def commit(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)
        self.git("add", name)
        self.git("commit", "--quiet", "--message", name)

    def problems(self, earlier: tuple[str, ...] = ("1.1.0",)) -> list[str]:
        return list(release.problems(self.root, "1.2.0", earlier, TODAY))


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


# --- What a release is ---------------------------------------------------------------------------------------------------


def test_a_commit_that_is_a_release_has_no_problem(repository: Repository) -> None:
    assert repository.problems() == []
    repository.git("tag", "v1.2.0")
    assert repository.problems() == []


@pytest.mark.parametrize(
    ("heading", "problem"),
    [
        ("Unreleased", "is not closed"),
        ("1.2.0", "is not closed"),
        ("1.2.1 (2027-03-14)", "has 1.2.1 as the newest release"),
        ("1.2.0 (2027-03-15)", "which is not yet"),
    ],
)
def test_a_changelog_that_is_not_closed_is_named(repository: Repository, heading: str, problem: str) -> None:
    repository.commit("CHANGELOG.md", CHANGELOG.replace("1.2.0 (2027-03-14)", heading))
    (found,) = repository.problems()
    assert problem in found


def test_a_changelog_without_a_word_on_upgrading_is_named(repository: Repository) -> None:
    text = CHANGELOG.replace("### Upgrade", "### Fixed") + "\n### Upgrade\n\nThat of the release before.\n"
    repository.commit("CHANGELOG.md", text)
    (found,) = repository.problems()
    assert "how to upgrade to 1.2.0" in found


def test_a_tag_at_another_commit_is_named(repository: Repository) -> None:
    repository.git("tag", "v1.2.0")
    repository.commit("more", "later")
    (found,) = repository.problems()
    assert "v1.2.0 is tagged elsewhere" in found


def test_a_tagged_release_that_check_upgrade_does_not_know_is_named(repository: Repository) -> None:
    (found,) = repository.problems(earlier=())
    assert "does not know v1.1.0" in found
    assert "1.2.0 as CURRENT and in EARLIER" in repository.problems(earlier=("1.1.0", "1.2.0"))[0]


def test_what_is_not_committed_is_named_and_a_lock_in_particular(repository: Repository) -> None:
    (repository.root / "notes").write_text("mine")
    (found,) = repository.problems()
    assert found == "Not committed: notes."
    (repository.root / "requirements.txt").write_text("newer")
    (found,) = repository.problems()
    assert "requirements.txt" in found
    assert "make lock" in found


def test_the_archive_holds_what_is_committed_and_its_digest_fits(repository: Repository) -> None:
    path = release.write_archive(repository.root, "1.2.0")
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["controlplane-1.2.0", "controlplane-1.2.0/CHANGELOG.md"]
    check = ["sha256sum", "--check", f"{path.name}.sha256"]
    assert subprocess.run(check, cwd=path.parent, check=False, capture_output=True).returncode == 0  # noqa: S603


# --- Known vulnerabilities -----------------------------------------------------------------------------------------------

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
UNKNOWN = {"name": "unheard-of", "skip_reason": "Dependency not found on PyPI"}
FOUND = {"id": "PYSEC-2027-1", "fix_versions": ["2.1", "3.0"], "aliases": [], "description": ""}
UNFIXED = {"id": "PYSEC-2027-2", "fix_versions": [], "aliases": [], "description": ""}


def judged(*packages: dict[str, Any]) -> Any:
    return advisories.verdict(json.dumps({"dependencies": packages, "fixes": []}), "")


def test_a_known_vulnerability_fails_and_says_what_mends_it() -> None:
    text, is_failure = judged(SOUND, UNKNOWN, {"name": "weak", "version": "2.0", "vulns": [FOUND, UNFIXED]})
    assert is_failure
    assert "weak 2.0: PYSEC-2027-1, fixed in 2.1, 3.0\nweak 2.0: PYSEC-2027-2, not fixed yet" in text


def test_packages_that_the_service_does_not_know_are_named() -> None:
    assert judged(SOUND, UNKNOWN) == ("No known vulnerability in 1 locked packages. Not checked: unheard-of.", False)
    assert judged(SOUND) == ("No known vulnerability in 1 locked packages.", False)


@pytest.mark.parametrize("errors", ["", "Traceback ...\nConnectionError: no route to host\n"])
def test_a_service_out_of_reach_fails_nothing_and_is_told(errors: str) -> None:
    text, is_failure = advisories.verdict("", errors)
    assert not is_failure
    assert text.startswith("NOT CHECKED")
    assert errors.strip().rpartition("\n")[2] in text


def test_a_service_that_knows_nothing_is_taken_for_out_of_reach() -> None:
    text, is_failure = judged(UNKNOWN, UNKNOWN)
    assert (text[:11], is_failure) == ("NOT CHECKED", False)
