"""The console's page that invites a colleague, and lists the invitations that are open."""

from typing import Any
from uuid import UUID

from allauth.core import ratelimit
from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AutocompleteSelect
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.http import require_POST
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from controlplane.accounts import invitations
from controlplane.accounts.throttling import too_many_attempts
from environments import mail, times
from environments.admin.console import actor_of
from environments.admin.signed_in import staff_of
from environments.models import Membership, Organization, Role
from environments.roles import Staff

#: Organizations that one invitation is for, at most; Members adds others.
MOST = 3


class InviteForm(forms.Form):
    """Who is invited, and the role in each organization."""

    invitee = forms.CharField(
        label="User name or mail address",
        max_length=invitations.LONGEST_ADDRESS,
        widget=UnfoldAdminTextInputWidget,
        validators=[invitations.check_invitee],
        help_text="Of somebody who is new here, or has a user already.",
    )

    def __init__(self, *args: Any, staff: Staff, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        mine = staff.within(Organization.objects.all(), "pk", invitations.INVITING)
        few = list(mine[: MOST + 1])
        self.rows = [(f"organization{number}", f"role{number}") for number in range(1, min(MOST, max(1, len(few))) + 1)]
        for number, (organization, role) in enumerate(self.rows, 1):
            self.fields[organization] = forms.ModelChoiceField(
                mine,
                label="Organization" if number == 1 else f"Organization {number}",
                required=number == 1,
                initial=few[0] if len(few) == 1 else None,
                widget=AutocompleteSelect(Membership._meta.get_field("organization"), admin.site),
            )
            self.fields[role] = forms.ChoiceField(
                label="Role" if number == 1 else f"Role {number}",
                choices=Role.choices,
                initial=Role.VIEWER,
                required=number == 1,
                widget=UnfoldAdminSelectWidget,
            )

    def clean(self) -> dict[str, Any]:
        """Each organization once, and none of which the person is a member already, as Members tells."""
        cleaned = super().clean() or {}
        self.roles: dict[str, Role] = {}
        for organization, role in self.rows:
            if chosen := cleaned.get(organization):
                if chosen.pk in self.roles:
                    self.add_error(organization, "This organization is chosen twice.")
                self.roles[chosen.pk] = Role(cleaned.get(role) or Role.VIEWER)
        members = Membership.objects.filter(organization__in=self.roles, user__username__iexact=cleaned.get("invitee"))
        if found := members.select_related("user").first():
            msg = f"{found.user} is a member of {found.organization_id} already: change the role under Members."
            raise ValidationError(msg)
        return cleaned


def invite(request: HttpRequest) -> HttpResponse:
    """The form on GET; on POST the link, shown this once."""
    staff = _inviter(request)
    form = InviteForm(request.POST or None, staff=staff)
    if request.method != "POST" or not form.is_valid():
        found = [each for each in invitations.open_invitations(times.now()) if each.is_within(staff)]
        context = {"form": form, "is_mailed": mail.is_configured(), "open": found}
        context["refused"] = invitations.refused(found)
        return _page(request, "invite", title="Invite a colleague", **context)
    if not ratelimit.consume(request, action="invite"):
        return too_many_attempts(request)
    inviter: Any = request.user
    issued = invitations.invite(
        form.cleaned_data["invitee"], form.roles, inviter=inviter, actor=actor_of(request), now=times.now()
    )
    known = staff.is_superuser and is_known(issued.invitation.invitee)
    context = {"issued": issued, "mail": invitations.send_link(issued), "is_known": known}
    response = _page(request, "invited", title="Invitation made", **context)
    response.headers["Cache-Control"] = "no-store"
    return response


@require_POST
def withdraw(request: HttpRequest) -> HttpResponse:
    """Ends an invitation that is open."""
    staff = _inviter(request)
    try:
        invitation_id = UUID(request.POST.get("invitation", ""))
    except ValueError:
        invitation_id = UUID(int=0)
    if invitations.withdraw(invitation_id, staff=staff, actor=actor_of(request), now=times.now()):
        messages.success(request, "The invitation is withdrawn: its link does not work any more.")
    else:
        messages.error(request, "This invitation was not open any more.")
    return redirect("console_invite")


def is_known(invitee: str) -> bool:
    """Whether there is a user with this name or address; only superusers and commands may be told."""
    users = User.objects.all()
    return (users.filter(username__iexact=invitee) | users.filter(email__iexact=invitee)).exists()


def _inviter(request: HttpRequest) -> Staff:
    staff = staff_of(request)
    if not staff.may_somewhere(invitations.INVITING):
        raise PermissionDenied
    return staff


def _page(request: HttpRequest, name: str, **context: Any) -> TemplateResponse:
    context = {**admin.site.each_context(request), **context}
    return TemplateResponse(request, f"admin/invitations/{name}.html", context)
