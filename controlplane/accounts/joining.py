"""The page that an invitation's link leads to: somebody makes a user, or joins as the one who is signed in.

The token is in the fragment of the link, which browsers send to nobody: it is in no log of a proxy, in no `Referer`,
and looking at the page uses nothing, so scanners of mail may. The page's script posts it.
"""

from typing import Any

from allauth.core import ratelimit
from django.contrib import admin, messages
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import csrf_protect
from django.views.decorators.debug import sensitive_post_parameters

from controlplane.accounts.forms import style
from controlplane.accounts.invitations import LONGEST_NAME, Invitation, NotOpenError, accept, find
from controlplane.accounts.pages import layout, no_access, refusal
from controlplane.accounts.throttling import too_many_attempts
from environments import times

TAKEN = "This name cannot be chosen. If it is yours, log in first, then open the link again."
NOT_OPEN = (
    "This invitation was used already, is older than a day, or was withdrawn. Ask whoever invited you for a new one."
)


class NewcomerForm(UserCreationForm):  # type: ignore[type-arg]  # not generic when run
    """A name and a password, by the rules that all passwords have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)  # type: ignore[arg-type]  # a form of a model has fields, too
        self.fields["username"].help_text = "You sign in with it. Letters, digits and @ . + - _ only."
        self.fields["username"].error_messages["unique"] = TAKEN
        self.fields["password1"].help_text = "12 characters or more, and nothing that is easily guessed."
        self.fields["password2"].help_text = ""

    def clean_username(self) -> str:
        """Nobody's, in whatever case."""
        username = str(self.cleaned_data["username"])
        if User.objects.filter(username__iexact=username).exists():
            self.add_error("username", TAKEN)
        return username


@method_decorator([never_cache, csrf_protect, sensitive_post_parameters()], name="dispatch")
class InvitationView(View):
    """Nothing is looked up on GET; POST shows the invitation, and with a form accepts it."""

    http_method_names = ["get", "head", "options", "post"]

    def get(self, request: HttpRequest) -> HttpResponse:
        return self._show(request)

    def post(self, request: HttpRequest) -> HttpResponse:
        if not ratelimit.consume(request, action="invitation"):
            return too_many_attempts(request)
        try:
            return self._post(request, find(request.POST.get("token", ""), times.now()))
        except NotOpenError:
            return refusal(request, 410, "This invitation cannot be used", NOT_OPEN)

    def _post(self, request: HttpRequest, invitation: Invitation) -> HttpResponse:
        address = request.META.get("REMOTE_ADDR") or None
        if request.user.is_authenticated:
            if not admin.site.has_permission(request):
                return no_access(request)
            if "join" in request.POST:
                accept(invitation, request.user, client_address=address, now=times.now())
                messages.success(request, f"You are a member now: {invitation.shown_roles}.")
                return HttpResponseRedirect(reverse("admin:index"))
            return self._show(request, invitation)
        is_sent = "username" in request.POST
        suggested = {"username": invitation.invitee[:LONGEST_NAME]}
        form = NewcomerForm(request.POST if is_sent else None, initial=suggested)
        if is_sent and form.is_valid():
            try:
                # Hashed before the transaction, lest others wait for what takes a third of a second.
                accept(invitation, form.save(commit=False), client_address=address, now=times.now())
            except IntegrityError:
                if not User.objects.filter(username__iexact=form.cleaned_data["username"]).exists():
                    raise NotOpenError from None
                form.add_error("username", TAKEN)  # by somebody meanwhile
            else:
                messages.success(request, "Your password is set. Log in with it.")
                return HttpResponseRedirect(reverse("account_login"))
        return self._show(request, invitation, form)

    def _show(
        self, request: HttpRequest, invitation: Invitation | None = None, form: NewcomerForm | None = None
    ) -> HttpResponse:
        own = {"invitation": invitation, "form": form, "token": request.POST.get("token", "")}
        return render(request, "account/invitation.html", {**layout(request, "Invitation"), **own})
