"""The database itself refuses to change what is on record; deleting old rows stays possible, for retention."""

from typing import Any

from django.db import migrations


def forbid_updates(table: str) -> migrations.RunPython:
    """A trigger that makes every UPDATE of the table fail."""

    def add(_apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(
                f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS "
                f"$$ BEGIN RAISE integrity_constraint_violation USING MESSAGE = '{table} is append-only'; END $$"
            )
            schema_editor.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE ON {table} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
            )
        else:
            schema_editor.execute(
                f"CREATE TRIGGER {table}_append_only BEFORE UPDATE ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            )

    def remove(_apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"DROP FUNCTION {table}_append_only CASCADE")
        else:
            schema_editor.execute(f"DROP TRIGGER {table}_append_only")

    return migrations.RunPython(add, remove)


class Migration(migrations.Migration):
    """Append-only ledger and audit trail."""

    dependencies = [("workers", "0001_initial"), ("environments", "0001_initial")]
    operations = [forbid_updates("workers_workerstart"), forbid_updates("environments_auditevent")]
