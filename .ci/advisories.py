"""Asks for known vulnerabilities of everything that is locked.

Fails when there are any. Where the advisory service is out of reach it says that nothing was checked, and passes: a
change is not at fault for that.
"""

import json
import subprocess
import sys
from typing import Any, NamedTuple

LOCK = "requirements-dev.txt"  # holds all other locks
COMMAND = [
    *(sys.executable, "-m", "pip_audit", "--requirement", LOCK, "--require-hashes", "--disable-pip"),
    *("--format", "json", "--progress-spinner", "off", "--timeout", "20"),
]


class Verdict(NamedTuple):
    """What to print, and whether the check failed."""

    text: str
    is_failure: bool


def verdict(report: str, errors: str) -> Verdict:
    """What pip-audit's report means, or its errors where it has made none."""
    try:
        packages: list[dict[str, Any]] = json.loads(report)["dependencies"]
    except ValueError:
        reason = (errors.strip().splitlines() or ["no reason was given"])[-1]
        return Verdict(f"NOT CHECKED: the advisory service is out of reach ({reason}).", is_failure=False)
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if found := [line for package in packages for line in _vulnerabilities(package)]:
        return Verdict("\n".join(["Known vulnerabilities:", *found]), is_failure=True)
    if len(unknown) == len(packages):
        text = f"NOT CHECKED: the advisory service knows none of the {len(packages)} locked packages."
        return Verdict(text, is_failure=False)
    text = f"No known vulnerability in {len(packages) - len(unknown)} locked packages."
    return Verdict(f"{text} Not checked: {', '.join(unknown)}." if unknown else text, is_failure=False)


def _vulnerabilities(package: dict[str, Any]) -> list[str]:
    lines = []
    for found in package.get("vulns", ()):
        mended = f"fixed in {', '.join(found['fix_versions'])}" if found["fix_versions"] else "not fixed yet"
        lines.append(f"{package['name']} {package['version']}: {found['id']}, {mended}")
    return lines


def main() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)  # noqa: S603  # our own command
    text, is_failure = verdict(done.stdout, done.stderr)
    sys.stdout.write(f"{text}\n")
    sys.exit(is_failure)


if __name__ == "__main__":
    main()
