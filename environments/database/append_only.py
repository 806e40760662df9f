"""Tables of which the database itself refuses to change a row; deleting old rows stays possible, for retention."""

from typing import Any

from django.db.migrations.operations.base import Operation


class AppendOnly(Operation):
    """A trigger that makes every UPDATE of a table fail; on SQLite it goes whenever a migration rebuilds the table."""

    reduces_to_sql = True

    def __init__(self, table: str) -> None:
        self.table = table

    @property
    def trigger(self) -> str:
        return f"{self.table}_append_only"

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Models do not know of it."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002  # Django's
        message = f"{self.table} is append-only"
        if schema_editor.connection.vendor != "postgresql":
            schema_editor.execute(
                f"CREATE TRIGGER {self.trigger} BEFORE UPDATE ON {self.table} "
                f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
            )
            return
        schema_editor.execute(
            f"CREATE FUNCTION {self.trigger}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE integrity_constraint_violation USING MESSAGE = '{message}'; END $$"
        )
        schema_editor.execute(
            f"CREATE TRIGGER {self.trigger} BEFORE UPDATE ON {self.table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {self.trigger}()"
        )

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:  # noqa: ARG002  # as above
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(f"DROP FUNCTION {self.trigger} CASCADE")
        else:
            schema_editor.execute(f"DROP TRIGGER {self.trigger}")

    def describe(self) -> str:
        return f"Refuse changes of rows of {self.table}"
