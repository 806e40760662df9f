"""What each role may do with each kind of row and on each page of the console."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.contrib.auth.models import User
from django.urls import reverse

from environments.models import (
    AuditEvent,
    DataKey,
    Environment,
    LiteLLMConnection,
    Membership,
    Organization,
    TelemetrySettings,
    TemporalConnection,
)
from tests.support.console import Model, routes_of
from workers.models import (
    ApiKey,
    Incident,
    NotificationDelivery,
    NotificationTarget,
    Worker,
    WorkerInstance,
    WorkerQueue,
    WorkerStart,
)

if TYPE_CHECKING:
    from tests.support.roles import Tenant

#: Roles, each with all rights of those before it. Nobody is none of them.
NO_MEMBER, VIEWER, OPERATOR, ADMINISTRATOR, SUPERUSER, NOBODY = range(6)


@dataclass(frozen=True)
class Rights:
    """The least role for each of a model's standard pages."""

    read: int = VIEWER
    add: int = NOBODY
    change: int = NOBODY
    delete: int = NOBODY


READ_ONLY = Rights()
BY_OPERATORS = Rights(add=OPERATOR, change=OPERATOR, delete=OPERATOR)
BY_ADMINISTRATORS = Rights(add=ADMINISTRATOR, change=ADMINISTRATOR, delete=ADMINISTRATOR)
RIGHTS: dict[Model, Rights] = {
    User: Rights(SUPERUSER, SUPERUSER, SUPERUSER, SUPERUSER),
    Organization: Rights(add=SUPERUSER, change=ADMINISTRATOR, delete=SUPERUSER),
    Membership: BY_ADMINISTRATORS,
    Environment: BY_ADMINISTRATORS,
    TemporalConnection: BY_ADMINISTRATORS,
    LiteLLMConnection: BY_ADMINISTRATORS,
    TelemetrySettings: BY_ADMINISTRATORS,
    WorkerQueue: BY_OPERATORS,
    Worker: BY_OPERATORS,
    ApiKey: Rights(add=OPERATOR),
    WorkerStart: READ_ONLY,
    WorkerInstance: READ_ONLY,
    AuditEvent: READ_ONLY,
    DataKey: Rights(ADMINISTRATOR),
    NotificationTarget: BY_ADMINISTRATORS,
    Incident: READ_ONLY,
    NotificationDelivery: READ_ONLY,
}


@dataclass(frozen=True)
class Page:
    """A page beside the standard ones: who may look, who may send its form, and what it is sent to do something."""

    get: int
    post: int = NOBODY
    data: Callable[["Tenant"], dict[str, Any]] = lambda _tenant: {}
    #: What its address is made of; by default the row of the page's own model.
    arguments: Callable[["Tenant"], list[Any]] | None = None
    query: str = ""
    #: Whether it is about a row, so that the role in the row's organization counts and not the best one.
    is_of_row: bool = True
    #: What a look is answered with.
    status: int = 200
    #: Whether its form changes something.
    is_change: bool = True
    #: Whether it passes over what is foreign like over what does not exist, instead of refusing it.
    is_silent: bool = False

    def address(self, name: str, tenant: "Tenant", model: Model, pk: Any = None) -> str:
        """Where it is, for a row of the organization."""
        count = routes_of(model)[name]
        arguments = self.arguments(tenant) if self.arguments else [pk or tenant.of(model).pk] * count
        return reverse(f"admin:{name}", args=arguments) + self.query


#: What a caller looks at unless it is said otherwise.
LOOK = Page(0)
PASSWORD = "correct horse battery staple"
NEW_PASSWORD = {"password1": PASSWORD, "password2": PASSWORD, "usable_password": "true"}
PAGES: dict[str, Page] = {
    "auth_user_password_change": Page(SUPERUSER, SUPERUSER, lambda _: NEW_PASSWORD),
    "workers_apikey_rotate": Page(OPERATOR, OPERATOR, lambda _: {"grace_hours": "1"}),
    "workers_apikey_revoke": Page(OPERATOR, OPERATOR, lambda _: {"reason": "leaked", "is_confirmed": "on"}),
    "workers_apikey_calendar": Page(VIEWER, VIEWER, is_of_row=False, is_change=False, is_silent=True),
    "workers_apikey_whose": Page(
        VIEWER, VIEWER, lambda tenant: {"text": tenant.token}, is_of_row=False, is_change=False, is_silent=True
    ),
    "workers_worker_boot": Page(VIEWER),
    "workers_worker_boot_steps": Page(VIEWER),
    "workers_worker_bulk": Page(
        NO_MEMBER,
        OPERATOR,
        lambda tenant: {"workers": tenant.of(Worker).pk.hex},
        arguments=lambda _: ["disable"],
        status=302,
        is_silent=True,
    ),
    "workers_worker_bulk_queues": Page(
        VIEWER,
        arguments=lambda tenant: [tenant.name],
        query="?app_label=workers&model_name=worker&field_name=queue",
        is_of_row=False,
    ),
}
for _kind in ("temporalconnection", "litellmconnection", "telemetrysettings"):
    # They connect, so here it is only tried to use them where that is refused.
    PAGES |= {
        f"environments_{_kind}_verify": Page(ADMINISTRATOR, ADMINISTRATOR, status=405, is_change=False),
        f"environments_{_kind}_verify_typed": Page(ADMINISTRATOR, ADMINISTRATOR, status=405, is_change=False),
        f"environments_{_kind}_verify_new": Page(
            ADMINISTRATOR,
            ADMINISTRATOR,
            lambda tenant: {"organization": tenant.name},
            is_of_row=False,
            status=405,
            is_change=False,
            is_silent=True,
        ),
    }
# It connects, too.
PAGES["workers_notificationtarget_test"] = Page(ADMINISTRATOR, ADMINISTRATOR, status=405, is_change=False)
#: The least role for each action of a list beside `delete_selected`.
ACTIONS: dict[tuple[Model, str], int] = {
    **{(Worker, name): OPERATOR for name in ("disable", "enable", "drain", "move", "issue_keys")},
    (Worker, "export"): VIEWER,
    (NotificationDelivery, "try_again"): ADMINISTRATOR,
}
#: The login's routes, which strangers may use.
LOGIN = {"account_login", "account_logout", "account_invitation", "mfa_authenticate", "mfa_login_webauthn"}
#: A person's own login and second factors: theirs alone, whatever the role.
ACCOUNT = {
    "mfa_index",
    "account_reauthenticate",
    "mfa_reauthenticate",
    "mfa_reauthenticate_webauthn",
    "mfa_activate_totp",
    "mfa_deactivate_totp",
    "mfa_add_webauthn",
    "mfa_remove_webauthn",
    "mfa_generate_recovery_codes",
}
STANDARD = ("changelist", "add", "history", "delete", "change")
