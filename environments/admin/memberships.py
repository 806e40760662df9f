"""The console's page of an organization's members."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from environments.admin.console import ConsoleAdmin, ConsoleForm
from environments.models import Membership
from environments.moments import moment


class MembershipForm(ConsoleForm):
    """Names the person: a list to choose from would tell one organization of another's people."""

    username = forms.CharField(max_length=150, widget=UnfoldAdminTextInputWidget, help_text="As the person signs in.")

    def clean_username(self) -> str:
        """The person with this name."""
        username = str(self.cleaned_data["username"])
        person = get_user_model().objects.filter(username=username, is_active=True, is_staff=True).first()
        if person is None:
            msg = "Nobody with this name may sign in to the console. Invite the person instead, on the list of members."
            raise ValidationError(msg)
        self.instance.user = person
        return username

    def _get_validation_exclusions(self) -> set[str]:
        found = {"user"} if self.instance.user_id else set()
        return super()._get_validation_exclusions() - found


@admin.register(Membership)
class MembershipAdmin(ConsoleAdmin):
    """Who has which role in which organization."""

    empty = "Superusers see everything; everybody else is a member of organizations, with a role in each."
    form = ConsoleForm
    list_display = ("user", "organization", "role", "created")
    list_select_related = ("user",)
    search_fields = ("user__username", "organization__id")
    autocomplete_fields = ("organization",)
    fixed_fields = ("organization", "user")
    readonly_fields = ("person",)
    list_before_template = "admin/invitations/button.html"

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        return super().get_form(request, obj, change, **(kwargs if obj else {**kwargs, "form": MembershipForm}))

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        """The person leads to the page of the user for those who have that."""
        shown = "user" if request.user.is_superuser else "person"
        return ("organization", shown if obj else "username", "role")

    @admin.display(description="user")
    def person(self, row: Membership) -> str:
        return row.user.get_username()

    @admin.display(description="since", ordering="created_at")
    def created(self, row: Membership) -> SafeString:
        return moment(row.created_at)
