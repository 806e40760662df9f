"""What processes share, and the mark of the database."""

import uuid
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = [("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.CreateModel(
            name="SharedEntry",
            fields=[
                (
                    "key_hash",
                    models.CharField(
                        help_text="SHA-256 of the key, in hexadecimal", max_length=64, primary_key=True, serialize=False
                    ),
                ),
                ("value", models.JSONField()),
                (
                    "owner",
                    models.UUIDField(default=uuid.uuid4, help_text="who added it, so that of two at once one is first"),
                ),
                ("expires_at", models.DateTimeField(db_index=True)),
            ],
            options={
                "verbose_name_plural": "shared entries",
            },
        ),
        migrations.CreateModel(
            name="DatabaseMark",
            fields=[
                ("id", models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ("identity", models.CharField(max_length=200)),
                (
                    "timeline",
                    models.BigIntegerField(help_text="PostgreSQL's, which a failover or a recovery changes", null=True),
                ),
                (
                    "doubt",
                    models.CharField(
                        help_text="why it is taken for restored although it is the same one", max_length=300
                    ),
                ),
                ("marked_at", models.DateTimeField()),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(condition=models.Q(("id", 1)), name="controlplane_one_database_mark")
                ],
            },
        ),
        # Forms look first whether a name to sign in with is free in any case; of two at once only the database sees both.
        # The table is Django's, so the model cannot say it. The lookup `iexact` uses this index, too.
        migrations.RunSQL(
            "CREATE UNIQUE INDEX controlplane_username_once ON auth_user (UPPER(username))",
            "DROP INDEX controlplane_username_once",
        ),
    ]
