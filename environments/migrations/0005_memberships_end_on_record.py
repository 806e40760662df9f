"""Memberships end on record with their person; the database stays as it is, since Django sees to this."""

from django.conf import settings
from django.db import migrations, models

from environments.database.removal import ENDED_ALONG


class Migration(migrations.Migration):
    dependencies = [
        ("environments", "0004_audit_by_tenant"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.AlterField(
                    "membership",
                    "user",
                    models.ForeignKey(
                        on_delete=ENDED_ALONG,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                        verbose_name="person",
                    ),
                ),
            ]
        ),
    ]
