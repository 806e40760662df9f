"""Checks of what is sealed: that all of it opens, and that no retired key is still needed."""

from collections import defaultdict
from collections.abc import Iterator

from django.conf import settings
from django.db.models import Count

from controlplane.doctor.findings import Finding, Level, many, note, problem
from environments.encryption import SEALS_TO_WARN_AT
from environments.management.progress import ProgressDisplay
from environments.models import DataKey
from environments.sealing import rotation

ROWS, KEYS = "sealed rows", "encryption keys"
ROTATE = "Run python manage.py rotate_encryption."


def examine_sealed_rows(progress: ProgressDisplay) -> Iterator[Finding]:
    """Opens every data key, every secret and every second factor; one finding for each key that is named."""
    failed = defaultdict[str, list[str]](list)
    total = rotation.count_sealed()
    for done, error in enumerate(rotation.verify_all(), 1):
        progress.show("sealed rows opened", done, max(total, done))
        if error:
            failed[error.key_id].append(f"{error.place.table} {error.place.row} {error.place.field}")
    for key_id, names in failed.items():
        what = f"Rows that cannot be opened, sealed with key {key_id}"
        advice = "Put the key back into ENCRYPTION_KEYS, restore the rows from a backup, or set the secrets anew."
        yield from many(Level.PROBLEM, ROWS, what=what, names=names, advice=advice)


def examine_encryption_keys() -> Iterator[Finding]:
    """Which keys of the ring are needed beside the active one, and data keys that have sealed too often."""
    ring = settings.ENCRYPTION_KEYS
    wrapped = DataKey.objects.order_by("wrapped_by").values_list("wrapped_by").annotate(Count("pk"))
    needed = dict(wrapped)
    for key_id, count in needed.items():
        if key_id in ring and key_id != ring.active.id:
            text = f"Encryption key {key_id} is not the active one, and {count} data keys are still wrapped with it."
            yield problem(KEYS, text, ROTATE)
    counts = {kind.name: len(rotation.rows_to_rewrap(kind)) for kind in rotation.ring_sealed()}
    counts["secrets"] = rotation.count_secrets_to_reseal()
    for name, count in counts.items():
        if count:
            yield problem(KEYS, f"{count} {name} are sealed with a retired key.", ROTATE)
    if not any(counts.values()):
        for key_id in set(ring) - set(needed) - {ring.active.id}:
            text = f"Encryption key {key_id} of the ring seals nothing."
            yield note(KEYS, text, "Put it first if it is the next one; remove it if it is retired.")
    names = [str(row) for row in DataKey.objects.filter(seal_count__gte=SEALS_TO_WARN_AT).order_by("pk")]
    advice = "Run python manage.py rotate_encryption --data-keys."
    yield from many(Level.PROBLEM, KEYS, what="Data keys that have sealed too often", names=names, advice=advice)
