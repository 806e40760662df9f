"""What is asked for when a key is issued, rotated, revoked or found."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminRadioSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from workers.api_keys.issuing import (
    DEFAULT_GRACE_PERIOD,
    DEFAULT_LIFETIME,
    LONGEST_GRACE_PERIOD,
    LONGEST_LIFETIME,
    NOTHING_TO_MANAGE,
    REASON_LENGTH,
)
from workers.models import ApiKey, KeyRole, Scope

#: The fields that a key is aimed with; each is called as its scope.
TARGETS = tuple(str(scope) for scope in Scope)
#: Of a text that is searched for keys.
LONGEST_TEXT = 10_000
LIFETIME_HELP = f"1 to {LONGEST_LIFETIME.days}."


class LifetimeField(forms.IntegerField):
    """For how many days a key is valid."""

    def __init__(
        self, *, label: str = "Lifetime in days", help_text: str = LIFETIME_HELP, required: bool = True
    ) -> None:
        super().__init__(
            label=label,
            help_text=help_text,
            required=required,
            initial=DEFAULT_LIFETIME.days,
            min_value=1,
            max_value=LONGEST_LIFETIME.days,
            widget=UnfoldAdminIntegerFieldWidget,
        )


class IssueForm(forms.ModelForm):  # type: ignore[type-arg]  # the model is the admin's
    """What the key is for, and for how long."""

    scope = forms.ChoiceField(
        label="Scope",
        choices=[(scope.value, f"One {scope.label.lower()}") for scope in list(Scope)[:3]]
        + [(Scope.ORGANIZATION.value, "A whole organization")],
        initial=Scope.WORKER,
        required=False,
        widget=UnfoldAdminRadioSelectWidget,
        help_text="The narrowest that does: whoever has the key can start every worker in its scope.",
    )
    role = forms.ChoiceField(
        label="Role",
        choices=KeyRole.choices,
        initial=KeyRole.WORKER,
        required=False,
        widget=UnfoldAdminRadioSelectWidget,
        help_text="A manager's key belongs to a person's tool or to Terraform, never to a worker. "
        "For more than one worker queue only an administrator issues one.",
    )
    days = LifetimeField(
        required=False,
        help_text=f"{LIFETIME_HELP} Blank only for a key that never expires, with the reason below.",
    )
    no_expiry_reason = forms.CharField(
        label="Reason for no expiry", max_length=REASON_LENGTH, required=False, widget=UnfoldAdminTextInputWidget
    )

    class Meta:
        model = ApiKey
        fields = ("name", *TARGETS)
        help_texts: dict[str, str] = {"name": "Says what the key is for, such as where it is kept."}

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.fields["organization"].required = False

    def clean(self) -> dict[str, Any]:
        """The object that the scope asks for, and a reason for no expiry; objects of other scopes do not count."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        cleaned["scope"] = cleaned.get("scope") or self._only_scope(cleaned)
        if cleaned["scope"] not in self.errors and not cleaned.get(cleaned["scope"]):
            self.add_error(cleaned["scope"], f"Choose the {Scope(cleaned['scope']).label.lower()}, or another scope.")
        if cleaned.get("days") is None and "days" not in self.errors and not cleaned.get("no_expiry_reason"):
            self.add_error("no_expiry_reason", "A key that never expires needs a written reason.")
        cleaned["role"] = KeyRole(cleaned.get("role") or KeyRole.WORKER)
        if cleaned["role"] == KeyRole.MANAGER and cleaned["scope"] == Scope.WORKER:
            self.add_error("role", NOTHING_TO_MANAGE)
        return cleaned

    def _only_scope(self, cleaned: dict[str, Any]) -> str:
        """The scope of the one object that was chosen."""
        chosen = [target for target in TARGETS if cleaned.get(target) or target in self.errors]
        if len(chosen) != 1:
            msg = "Choose exactly one: worker, worker queue, environment or organization."
            raise ValidationError(msg)
        return chosen[0]

    def _post_clean(self) -> None:
        """The domain makes the row; there is none to construct or check here."""


class RotateForm(forms.Form):
    """How long the old key stays valid."""

    grace_hours = forms.IntegerField(
        label="Grace period in hours",
        initial=int(DEFAULT_GRACE_PERIOD.total_seconds() // 3600),
        min_value=0,
        max_value=LONGEST_GRACE_PERIOD.days * 24,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The old key stays valid this long, 0 to 720. With 0 it ends at once.",
    )


class RevokeForm(forms.Form):
    """Why the key ends; while workers run with it, that they are meant to be cut off."""

    reason = forms.CharField(max_length=REASON_LENGTH, widget=UnfoldAdminTextInputWidget)
    is_confirmed = forms.BooleanField(widget=UnfoldBooleanSwitchWidget)

    def __init__(self, data: Any, *, live_workers: int) -> None:
        super().__init__(data)
        if not live_workers:
            del self.fields["is_confirmed"]
            return
        who = f"the {live_workers} workers that run" if live_workers > 1 else "the worker that runs"
        self.fields["is_confirmed"].label = f"Cut off {who} with this key"


class WhoseForm(forms.Form):
    """A key that was found somewhere; it is never shown again, not even to whoever typed it."""

    text = forms.CharField(
        label="The API key, or the line that it was found in",
        max_length=LONGEST_TEXT,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
    )
