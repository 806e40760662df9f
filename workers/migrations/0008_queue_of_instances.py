"""What a process was given, and the current one's queue, so that a fleet is counted without joining its workers."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models
from django.db.migrations.operations.base import Operation

from environments.database.schema_changes import AddConstraintUnchecked, AddFieldUnlessThere, SchemaChange
from environments.database.tenancy import SameAs

TABLE = "workers_workerinstance"
TRIGGER = f"{TABLE}_fill_queue"


class FillQueue(Operation):
    """Fills in the queue of what the release before records meanwhile, which knows of none.

    For PostgreSQL, where it serves while this one migrates; the next release drops it.
    """

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models do not know of it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor != "postgresql":
            return
        schema_editor.execute(
            f"CREATE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "NEW.queue_id := (SELECT queue_id FROM workers_worker WHERE id = NEW.worker_id); RETURN NEW; END $$"
        )
        schema_editor.execute(
            f"CREATE TRIGGER {TRIGGER} BEFORE INSERT ON {TABLE} "
            f"FOR EACH ROW WHEN (NEW.queue_id IS NULL AND NEW.is_current) EXECUTE FUNCTION {TRIGGER}()"
        )

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"DROP FUNCTION {TRIGGER} CASCADE")

    def describe(self) -> str:
        return "Fill in the queue of processes that are recorded without one"


class Migration(SchemaChange):
    dependencies = [
        ("workers", "0007_queue_key_of_workers"),
    ]

    operations = [
        AddFieldUnlessThere(
            model_name="workerinstance",
            name="configuration_revision",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Of what it was given at its start.",
                max_length=12,
            ),
        ),
        migrations.AddField(
            model_name="workerinstance",
            name="queue",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="workers.workerqueue",
            ),
        ),
        AddConstraintUnchecked(
            model_name="workerinstance",
            constraint=SameAs(
                column="queue",
                name="workers_workerinstance_worker_queue",
                organization="organization",
                pointer="worker",
            ),
        ),
        FillQueue(),
    ]
