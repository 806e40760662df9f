"""Keys end on record with what they are for; the database stays as it is, since Django sees to this."""

import django.db.models.deletion
from django.db import migrations, models

from environments.database.removal import ENDED_ALONG


def key_to(model: str) -> models.ForeignKey:  # type: ignore[type-arg]  # not generic when run
    """A key's pointer to what it is for."""
    related_name = "api_keys" if model == "workers.worker" else "+"
    return models.ForeignKey(blank=True, null=True, on_delete=ENDED_ALONG, related_name=related_name, to=model)


class Migration(migrations.Migration):
    dependencies = [
        ("environments", "0005_memberships_end_on_record"),
        ("workers", "0014_is_superseded"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField("apikey", "worker", key_to("workers.worker")),
                migrations.AlterField("apikey", "queue", key_to("workers.workerqueue")),
                migrations.AlterField("apikey", "environment", key_to("environments.environment")),
                migrations.AlterField(
                    "apikey",
                    "replaced_by",
                    models.OneToOneField(
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="replaces",
                        to="workers.apikey",
                        verbose_name="replaced by",
                    ),
                ),
            ]
        ),
    ]
