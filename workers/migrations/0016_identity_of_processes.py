"""What tells one process from another is kept with it, as are the addresses that its heartbeats come from."""

from typing import Any

from django.db import migrations, models

from environments.database.schema_changes import SchemaChange


def digest_of(subject: str) -> "models.CharField[Any, Any]":
    """As the model makes it."""
    help_text = f"Of what the process told of {subject}."
    return models.CharField(blank=True, db_default="", default="", help_text=help_text, max_length=12)


FIELDS: dict[str, dict[str, Any]] = {
    "workerinstance": {
        "container_digest": digest_of("its container"),
        "boot_digest": digest_of("its machine's boot"),
        "birth_digest": digest_of("its own beginning"),
        "heartbeat_address": models.GenericIPAddressField(null=True, help_text="Where the last heartbeat came from."),
        "address_before": models.GenericIPAddressField(
            null=True, help_text="Where those before came from, if from elsewhere."
        ),
        "doubled_at": models.DateTimeField(
            null=True, help_text="When heartbeats came from two addresses in turn, sooner than one process sends them."
        ),
        "is_replaced": models.BooleanField(
            db_default=False, default=False, help_text="It was taken for dead when a process started in its place."
        ),
    },
    "updatelock": {
        "api_key_id": models.UUIDField(null=True, help_text="The key that it was taken with."),
        "process_digest": models.CharField(
            blank=True, db_default="", default="", help_text="Of what its holder told of its process.", max_length=12
        ),
    },
}


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0015_keys_end_with_their_target"),
    ]

    operations = [
        migrations.AddField(model_name=model, name=name, field=field)
        for model, fields in FIELDS.items()
        for name, field in fields.items()
    ]
