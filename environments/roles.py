"""What a signed-in person may see and do, from the roles that they have in organizations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db.models import AutoField

from environments.database.statements import Parameter, Rows
from environments.models import Membership, Role


@dataclass(frozen=True)
class Staff:
    """A person with their roles, by organization; a superuser may do everything everywhere."""

    is_superuser: bool = False
    roles: Mapping[str, Role] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.is_superuser, frozenset(self.roles.items())))

    def may(self, role: Role | None, organization_id: str | None) -> bool:
        """Whether the person has at least this role in the organization; a role of None is for superusers only."""
        if self.is_superuser:
            return True
        held = self.roles.get(organization_id or "")
        return held is not None and role is not None and held.includes(role)

    def may_somewhere(self, role: Role | None) -> bool:
        """Whether there is an organization where the person may."""
        return self.is_superuser or any(self.may(role, organization_id) for organization_id in self.roles)

    def within(self, rows: Any, path: str, role: Role | None = Role.VIEWER) -> Any:
        """Of a query set the rows of organizations where the person may; `path` is the lookup of the organization."""
        if self.is_superuser:
            return rows
        mine = [organization_id for organization_id in self.roles if self.may(role, organization_id)]
        return rows.filter(**{f"{path}__in": mine}) if mine else rows.none()


#: A superuser, and whoever works at the machine itself.
EVERYWHERE = Staff(is_superuser=True)


def staff_from(user: Any) -> Staff:
    """The roles of a user; none for whoever may not sign in to the console."""
    if not (user.is_active and user.is_staff):
        return Staff()
    if user.is_superuser:
        return EVERYWHERE
    return Staff(roles={organization_id: Role(role) for organization_id, role in _ROLES(user=user.pk)})


_ROLES = Rows(
    lambda: (
        Membership.objects.filter(user=Parameter("user", AutoField())).order_by().values_list("organization_id", "role")
    )
)
