"""Rewraps what another key of the ring sealed under the active one; with --data-keys reseals all under new ones."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError
from django.utils import timezone

from environments.audit import Actor
from environments.management.command import ControlPlaneCommand
from environments.sealing import rotation
from environments.sealing.data_keys import DataKeyExhaustedError
from environments.sealing.rotation import Progress, RowsCannotOpenError

SECONDS_BETWEEN_LINES = 10


class Command(ControlPlaneCommand):
    """First add the new key to every process's ring as the last entry, then put it first, then run this."""

    when_refused = "Stopped, what is done stays, so run the command again: the database refused"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--data-keys", action="store_true", help="make new data keys and reseal every secret")
        parser.add_argument(
            "--made-before",
            type=_time,
            metavar="TIME",
            help="with --data-keys: replace only data keys made before this time, to resume a run that was stopped",
        )
        parser.add_argument("--dry-run", action="store_true", help="only count what would be done")
        parser.add_argument("--verify", action="store_true", help="open everything and report what does not open")

    def handle(self, **options: Any) -> None:
        _refuse_contradictions(options)
        if options["verify"]:
            self._verify(options["format"])
            return
        now = timezone.now()
        made_before = options["made_before"] or now
        if not options["data_keys"]:
            made_before = datetime.min.replace(tzinfo=UTC)
        if options["dry_run"]:
            self._print(_counts_to_do(made_before), options["format"])
            return
        if options["data_keys"]:
            self.stderr.write(f"If this is stopped, resume it with --data-keys --made-before {made_before.isoformat()}")
        actor = Actor("command:rotate_encryption")
        steps = {
            "data keys rewrapped": rotation.rewrap_data_keys(actor=actor, now=now),
            **{f"{kind.name} rewrapped": rotation.rewrap_ring_sealed(kind) for kind in rotation.ring_sealed()},
            "data keys replaced": rotation.replace_data_keys(made_before=made_before, actor=actor, now=now),
            "secrets resealed": rotation.reseal_secrets(),
        }
        counts, failures = {}, []
        for name, step in steps.items():
            counts[name], failed = self._run(name, step)
            failures += failed
        self._print(counts, options["format"])
        if failures:
            msg = f"Not done: {'; '.join(failures)}. The others are done: mend it and run the command again."
            raise CommandError(msg)

    def _run(self, name: str, step: Iterator[Progress]) -> tuple[int, list[str]]:
        """Runs a step to its end, showing how far it is: on a terminal in place, otherwise a line a batch."""
        done, progress = 0, self.progress()
        try:
            for done, total in step:
                progress.show(name, done, total)
        except RowsCannotOpenError as error:
            return done - len(error.errors), [str(each) for each in error.errors]
        except DataKeyExhaustedError as error:
            return done, [str(error)]
        return done, []

    def _verify(self, output_format: str) -> None:
        opened = failed = 0
        total = rotation.count_sealed()
        progress = self.progress(seconds_between_lines=SECONDS_BETWEEN_LINES)
        for done, failure in enumerate(rotation.verify_all(), 1):
            progress.show("opened", done, max(total, done))
            if failure is None:
                opened += 1
            else:
                failed += 1
                self.stderr.write(str(failure))
        self._print({"opened": opened, "failed": failed}, output_format)
        if failed:
            msg = f"{failed} cannot be opened."
            raise CommandError(msg)

    def _print(self, counts: dict[str, int], output_format: str) -> None:
        if output_format == "json":
            self.stdout.write(json.dumps(counts))
            return
        for name, count in counts.items():
            self.stdout.write(f"{name}: {count}")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        msg = "expected a time such as 2026-03-31T09:30:00+00:00"
        raise ArgumentTypeError(msg) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _refuse_contradictions(options: dict[str, Any]) -> None:
    if options["made_before"] and not options["data_keys"]:
        msg = "--made-before needs --data-keys."
        raise CommandError(msg)
    if options["verify"] and (options["data_keys"] or options["dry_run"]):
        msg = "--verify changes nothing and goes alone."
        raise CommandError(msg)


def _counts_to_do(made_before: datetime) -> dict[str, int]:
    replaced = rotation.data_keys_to_replace(made_before)
    organizations = set(replaced.values_list("organization_id", flat=True))
    return {
        "data keys to rewrap": rotation.data_keys_to_rewrap().count(),
        **{f"{kind.name} to rewrap": len(rotation.rows_to_rewrap(kind)) for kind in rotation.ring_sealed()},
        "data keys to replace": len(organizations),
        "secrets to reseal": rotation.count_secrets_to_reseal(of_every=organizations),
    }
