"""Makes the product's fleet, run in its environment: `python -m tests.bench.fleet QUEUES WORKERS KEYS`; prints it as JSON."""

import json
import os
import secrets
import sys
import tempfile

import django


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
    django.setup()
    queues, workers, keys = sys.argv[1:]
    with tempfile.NamedTemporaryFile() as ids:
        size = (f"--queues={queues}", f"--workers={workers}", "--starts=0", f"--output={ids.name}")
        from django.core.management import call_command  # noqa: PLC0415  # reads the settings

        call_command("migrate", verbosity=0)
        call_command("seed_fleet", "--organizations=1", *size, stdout=sys.stderr)
        worker_ids = ids.read().decode().split()
    print(json.dumps({"worker_ids": worker_ids, **_complete(int(keys))}))


def _complete(keys: int) -> dict[str, list[str]]:
    """No queue has a limit; the secrets are as long as the reference's; more keys."""
    from django.utils import timezone  # noqa: PLC0415  # Django is set up

    from environments.audit import Actor  # noqa: PLC0415  # as above
    from environments.encryption import Secret  # noqa: PLC0415  # as above
    from environments.models import LiteLLMConnection, Organization, TemporalConnection  # noqa: PLC0415  # as above
    from environments.sealing.data_keys import seal_api_key  # noqa: PLC0415  # as above
    from tests.bench.reference.filling import LITELLM_CHARACTERS, TEMPORAL_CHARACTERS  # noqa: PLC0415  # as above
    from workers.api_keys.issuing import issue_api_key, issued_key  # noqa: PLC0415  # as above
    from workers.models import WorkerQueue  # noqa: PLC0415  # as above

    organization, now = Organization.objects.get(), timezone.now()
    connections = (
        (TemporalConnection.objects.get(), TEMPORAL_CHARACTERS),
        (LiteLLMConnection.objects.get(), LITELLM_CHARACTERS),
    )
    for connection, characters in connections:
        seal_api_key(connection, Secret(secrets.token_hex(characters)[:characters]), now=now)
        connection.save()
    WorkerQueue.objects.update(max_workers=None)
    actor = Actor("command:bench")
    issued = [issue_api_key(organization, name=f"bench {at}", actor=actor, now=now) for at in range(keys)]
    queue_ids = [str(key) for key in WorkerQueue.objects.values_list("pk", flat=True)]
    return {"queue_ids": queue_ids, "tokens": [issued_key(each)["api_key"] for each in issued]}


if __name__ == "__main__":
    main()
