"""The console's pages of the people who may sign in."""

from http import HTTPStatus
from typing import Any

from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Group, User
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from controlplane.accounts.factors import describe
from environments import audit
from environments.admin.console import ConsoleAdmin, actor_of

admin.site.unregister(User)
admin.site.unregister(Group)


class PersonForm(UserChangeForm):
    """A person, whose name to sign in with is nobody else's in whatever case, as Django sees to for a new one."""

    def clean_username(self) -> str:
        """ValidationError for another one's."""
        username = str(self.cleaned_data["username"])
        if User.objects.filter(username__iexact=username).exclude(pk=self.instance.pk).exists():
            msg = "Somebody has this name already, in upper or lower case."
            raise ValidationError(msg)
        return username


@admin.register(User)
class ConsoleUserAdmin(UserAdmin, ConsoleAdmin):  # type: ignore[type-arg]  # not generic when run
    """People who may sign in; what they see then, their memberships say. Only superusers get here."""

    empty = "Nobody may sign in yet."
    reader_role = writer_role = None
    made_at = "date_joined"
    form = PersonForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_filter = ()
    list_before_template = "admin/invitations/button.html"
    fieldsets: Any = (
        (None, {"fields": ("username", "password")}),
        ("Person", {"fields": ("first_name", "last_name", "email")}),
        ("Access", {"fields": ("is_active", "is_staff", "is_superuser")}),
        ("Dates", {"fields": ("last_login", "date_joined")}),
    )
    readonly_fields = ("last_login", "date_joined")

    @transaction.atomic
    def delete_model(self, request: HttpRequest, obj: User) -> None:
        """Records what the person signed in with, too, as when it is removed by itself."""
        actor, now = actor_of(request), timezone.now()
        for factor in Authenticator.objects.filter(user_id=obj.pk).order_by("pk"):
            changes: dict[str, list[Any]] = {"second_factor": [describe(factor), None]}
            audit.record("user.second_factor_removed", obj, actor=actor, now=now, changes=changes)
        for uid in SocialAccount.objects.filter(user_id=obj.pk).order_by("pk").values_list("uid", flat=True):
            audit.record("user.identity_unlinked", obj, actor=actor, now=now, changes={"identity": [uid, None]})
        super().delete_model(request, obj)

    @transaction.atomic
    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        """Django saves a new password past `save_model`, so its record is written here."""
        response = super().user_change_password(request, id, form_url)
        if response.status_code == HTTPStatus.FOUND:
            user = User.objects.get(pk=id)
            audit.record("user.password_changed", user, actor=actor_of(request), now=timezone.now())
        return response
