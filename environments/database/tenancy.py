"""Isolation of organizations in the database: no row may point to a row of another organization."""

from collections.abc import Sequence
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, models


class SameOrganization(models.BaseConstraint):
    """A composite foreign key (organization, pointer) -> (organization, id), so that a pointer cannot leave its tenant.

    Django has no such constraint. As a constraint of the model it is part of CREATE TABLE on SQLite, so it outlives the
    table rebuilds that Django's migrations do there, which triggers would not. The model pointed to is `TenantOwned`.
    """

    default_violation_error_message = "This belongs to another organization."
    #: In SQL, what becomes of this row when the one pointed to changes; that change is refused otherwise.
    on_update = ""

    def __init__(self, *, pointer: str, name: str, organization: str = "organization", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.pointer = pointer
        self.organization = organization

    def _columns(self, model: Any) -> list[tuple[str, str]]:
        """Each of this table's columns with the one that it refers to."""
        pointer, organization = model._meta.get_field(self.pointer), model._meta.get_field(self.organization)
        return [(organization.column, "organization_id"), (pointer.column, pointer.related_model._meta.pk.column)]

    def _body(self, model: Any, schema_editor: Any) -> str:
        quote = schema_editor.quote_name
        target = model._meta.get_field(self.pointer).related_model._meta
        here, there = (", ".join(map(quote, names)) for names in zip(*self._columns(model), strict=True))
        # Django's own foreign keys are deferred on SQLite, and `flush` deletes tables in an order that relies on it.
        deferral = " DEFERRABLE INITIALLY DEFERRED" if schema_editor.connection.vendor == "sqlite" else ""
        return (
            f"CONSTRAINT {quote(self.name)} FOREIGN KEY ({here}) "
            f"REFERENCES {quote(target.db_table)} ({there}){self.on_update}{deferral}"
        )

    def constraint_sql(self, model: Any, schema_editor: Any) -> str:
        return self._body(model, schema_editor)

    def create_sql(self, model: Any, schema_editor: Any) -> str:
        return f"ALTER TABLE {schema_editor.quote_name(model._meta.db_table)} ADD {self._body(model, schema_editor)}"

    def remove_sql(self, model: Any, schema_editor: Any) -> str:
        table = schema_editor.quote_name(model._meta.db_table)
        return f"ALTER TABLE {table} DROP CONSTRAINT {schema_editor.quote_name(self.name)}"

    def validate(
        self,
        model: type[models.Model],
        instance: models.Model,
        exclude: Any = None,
        using: str = DEFAULT_DB_ALIAS,
    ) -> None:
        """ValidationError on the pointer's field when its row belongs to another organization."""
        if exclude and self.pointer in exclude:
            return
        pointer = model._meta.get_field(self.pointer)
        organization = model._meta.get_field(self.organization)
        target_id = getattr(instance, pointer.attname)  # type: ignore[union-attr]  # a pointer is a foreign key
        organization_id = getattr(instance, getattr(organization, "attname", self.organization))
        if target_id is None or not organization_id:
            return
        targets = pointer.related_model._base_manager.using(using)  # type: ignore[union-attr]  # as above
        if not targets.filter(pk=target_id, organization_id=organization_id).exists():
            raise ValidationError({self.pointer: self.get_violation_error_message()})

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        path, arguments, kwargs = super().deconstruct()
        return path, arguments, {**kwargs, "pointer": self.pointer, "organization": self.organization}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameOrganization) and self.deconstruct() == other.deconstruct()

    __hash__ = None  # type: ignore[assignment]  # like Django's own constraints, which define only __eq__


class SameAs(SameOrganization):
    """The same, and a column has here what it has in the row pointed to: the database changes it along.

    The model pointed to has a unique constraint of (organization, id, column). As with every foreign key, a row without
    the column is not looked at.
    """

    on_update = " ON UPDATE CASCADE"

    def __init__(self, *, column: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.column = column

    def _columns(self, model: Any) -> list[tuple[str, str]]:
        there = model._meta.get_field(self.pointer).related_model
        here, there = (each._meta.get_field(self.column).column for each in (model, there))
        return [*super()._columns(model), (here, there)]

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        path, arguments, kwargs = super().deconstruct()
        return path, arguments, {**kwargs, "column": self.column}


def same_organization(*pointers: str, organization: str = "organization") -> list[models.BaseConstraint]:
    """The constraints that keep each pointer within the row's organization."""
    return [
        SameOrganization(pointer=pointer, name=f"%(app_label)s_%(class)s_{pointer}_tenant", organization=organization)
        for pointer in pointers
    ]


class TenantOwned(models.Model):
    """A row that belongs to one organization and can be pointed to only from within it."""

    # Its index is the one of the tenant's key.
    organization = models.ForeignKey(
        "environments.Organization", on_delete=models.PROTECT, related_name="+", db_index=False
    )

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["organization", "id"], name="%(app_label)s_%(class)s_tenant_key"),
        ]
