"""Checks that HEAD is a release, writes its archive, and says what to do next; `make release` runs it.

`make release` has run `make lint` (Dockerfile included) and `make lock` before, so a stale lock is an uncommitted file.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path

from controlplane.releases import CURRENT, EARLIER

ROOT = Path(__file__).resolve().parent.parent
LOCKS = {"requirements.txt", "requirements-tracing.txt", "requirements-dev.txt"}
NEWEST = re.compile(r"^## (.+)\n", re.MULTILINE)
CLOSED = re.compile(r"(\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)")


def git(root: Path, *arguments: str) -> str:
    """What git prints; nothing where it fails, as it does for a tag that is not there."""
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own arguments
    return done.stdout.strip() if done.returncode == 0 else ""


def problems(root: Path, number: str, earlier: Sequence[str], today: date) -> Iterator[str]:
    """Everything that keeps HEAD from being this release, in sentences that say what to do."""
    if changed := [line[2:].strip() for line in git(root, "status", "--porcelain").splitlines()]:
        advice = " `make lock` has just written the locks anew: look at them." if LOCKS & {*changed} else ""
        yield f"Not committed: {', '.join(changed)}.{advice}"
    yield from changelog_problems((root / "CHANGELOG.md").read_text(), number, today)
    yield from tag_problems(root, number, earlier)


def changelog_problems(text: str, number: str, today: date) -> Iterator[str]:
    """The newest section is this release's, has a date that has come, and says how to upgrade."""
    newest = NEWEST.search(text)
    closed = CLOSED.fullmatch(newest[1]) if newest else None
    if newest is None or closed is None:
        yield f"CHANGELOG.md is not closed: its newest section has to be `## {number} ({today})`."
        return
    if closed[1] != number:
        yield f"CHANGELOG.md has {closed[1]} as the newest release, and controlplane/releases.py has {number}."
    if date.fromisoformat(closed[2]) > today:
        yield f"CHANGELOG.md says that {number} came out on {closed[2]}, which is not yet."
    if "\n### Upgrade\n" not in text[newest.end() :].partition("\n## ")[0]:
        yield f"CHANGELOG.md does not say how to upgrade to {number}: add `### Upgrade`."


def tag_problems(root: Path, number: str, earlier: Sequence[str]) -> Iterator[str]:
    """The tag is free or here, and `check_upgrade` knows each release that was tagged before."""
    tagged = git(root, "rev-list", "--max-count=1", f"v{number}")
    if tagged and tagged != git(root, "rev-parse", "HEAD"):
        yield f"v{number} is tagged elsewhere, at {tagged[:12]}: raise CURRENT in controlplane/releases.py."
    if number in earlier:
        yield f"controlplane/releases.py has {number} as CURRENT and in EARLIER: raise CURRENT."
    for tag in git(root, "tag", "--list", "v[0-9]*").split():
        if tag[1:] not in {number, *earlier}:
            yield f"`check_upgrade` does not know {tag}: add it to EARLIER in controlplane/releases.py."


def write_archive(root: Path, number: str) -> Path:
    """The release as a file, its SHA-256 beside it."""
    path = root / "var" / "release" / f"controlplane-{number}.tar.gz"
    path.parent.mkdir(parents=True, exist_ok=True)
    git(root, "archive", f"--prefix=controlplane-{number}/", f"--output={path}", "HEAD")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    return path


def main() -> None:
    found = list(problems(ROOT, CURRENT, [release.number for release in EARLIER], datetime.now(UTC).date()))
    if found:
        sys.exit("\n".join([f"{CURRENT} is not ready to be released:", *(f"- {problem}" for problem in found)]))
    archive = write_archive(ROOT, CURRENT).relative_to(ROOT)
    sys.stdout.write(f"""{CURRENT} is ready: {archive} and its SHA-256 are written. Next:

bash .ci/run                                                  # if it has not passed for this commit
git tag --annotate v{CURRENT} --message 'Control plane {CURRENT}'
git push origin v{CURRENT}
docker build --file deploy/Dockerfile --tag controlplane:{CURRENT} .
""")


if __name__ == "__main__":
    main()
