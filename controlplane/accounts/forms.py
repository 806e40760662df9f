"""The login's forms: allauth's, in the console's look, closed to odd input."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from allauth.account.forms import LoginForm, ReauthenticateForm
from allauth.mfa.base.forms import AuthenticateForm
from allauth.mfa.base.forms import ReauthenticateForm as ReauthenticateByCodeForm
from allauth.mfa.models import Authenticator
from allauth.mfa.totp.forms import ActivateTOTPForm
from allauth.mfa.totp.internal.auth import generate_totp_secret
from allauth.mfa.webauthn.forms import (
    AddWebAuthnForm,
    AuthenticateWebAuthnForm,
    LoginWebAuthnForm,
    ReauthenticateWebAuthnForm,
)
from django import forms
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator
from django.http import HttpRequest
from unfold.widgets import CHECKBOX_CLASSES, INPUT_CLASSES

from controlplane.accounts import sealing
from controlplane.accounts.pages import LONGEST_INPUT

#: Characters; a credential with its attestation has a few thousand.
LONGEST_CREDENTIAL = 32_768
LONGEST_NAME = 100
SEALED_SEED = "controlplane_totp_seed"
CODE_NOT_VALID = "This code is not valid, or was used before."
PASSKEY_NOT_ACCEPTED = "This passkey was not accepted. Try again."


def style(form: forms.Form) -> None:
    """Makes a form's fields look like the console's, and no text longer than is sensible."""
    for field in form.fields.values():
        classes = CHECKBOX_CLASSES if isinstance(field.widget, forms.CheckboxInput) else INPUT_CLASSES
        field.widget.attrs["class"] = " ".join(classes)
        field.widget.attrs.pop("placeholder", None)
        if isinstance(field, forms.CharField) and not isinstance(field, forms.JSONField):
            field.validators.append(MaxLengthValidator(LONGEST_INPUT))


class PasswordLoginForm(LoginForm):
    """Username and password, under the names that Django's own login has."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)
        self.fields["login"].widget.attrs["autofocus"] = True

    def add_prefix(self, field_name: str) -> str:
        return "username" if field_name == "login" else str(super().add_prefix(field_name))


class PasswordForm(ReauthenticateForm):
    """The password once more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)
        self.fields["password"].widget.attrs["autofocus"] = True


class CodeMixin:
    """A code of an authenticator app, or a recovery code."""

    fields: dict[str, forms.Field]
    cleaned_data: dict[str, Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)  # type: ignore[arg-type]  # mixed into a form
        self.fields["code"].widget.attrs |= {"autofocus": True, "inputmode": "numeric"}

    def clean_code(self) -> str:
        # Codes are compared in constant time, which Python does with ASCII only.
        if not self.cleaned_data["code"].isascii():
            raise ValidationError(CODE_NOT_VALID)
        return str(super().clean_code())


class CodeForm(CodeMixin, AuthenticateForm):
    """The second factor of a login."""


class ReauthenticateCodeForm(CodeMixin, ReauthenticateByCodeForm):
    """The second factor once more."""


class ActivateAppForm(CodeMixin, ActivateTOTPForm):
    """Adds an authenticator app. Its seed waits in the session for the first code, sealed there as it is later."""

    def __init__(self, *args: Any, user: User, request: HttpRequest, **kwargs: Any) -> None:
        # Past allauth's constructor, which leaves the seed in the session in plain text.
        forms.Form.__init__(self, *args, **kwargs)
        style(self)
        self.user = user
        sealed = request.session.get(SEALED_SEED) if self.is_bound else None
        if sealed:
            self.secret = sealing.open_factor(sealed, user.pk)
        else:
            self.secret = generate_totp_secret()
            request.session[SEALED_SEED] = sealing.seal_factor(self.secret, user.pk)


class CredentialField(forms.JSONField):
    """What a browser tells of a passkey; JSON that is too long or too deep is refused like any other that is wrong."""

    widget = forms.HiddenInput

    def to_python(self, value: Any) -> Any:
        if isinstance(value, str) and (len(value) > LONGEST_CREDENTIAL or "\\u0000" in value):
            raise ValidationError(PASSKEY_NOT_ACCEPTED)
        try:
            return super().to_python(value)
        except RecursionError:
            raise ValidationError(PASSKEY_NOT_ACCEPTED) from None


@contextmanager
def refusing_malformed() -> Iterator[None]:
    """What allauth and fido2 stumble over in a credential that no browser made is an error of the form, too."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValidationError(PASSKEY_NOT_ACCEPTED) from error


class CredentialMixin:
    """A passkey's answer to a challenge."""

    fields: dict[str, forms.Field]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["credential"] = CredentialField()

    def clean_credential(self) -> Authenticator:
        with refusing_malformed():
            return super().clean_credential()


class PasskeyForm(CredentialMixin, AuthenticateWebAuthnForm):
    """The second factor of a login."""


class PasskeyLoginForm(CredentialMixin, LoginWebAuthnForm):
    """A passkey instead of a password."""


class ReauthenticatePasskeyForm(CredentialMixin, ReauthenticateWebAuthnForm):
    """A passkey once more."""


class AddPasskeyForm(AddWebAuthnForm):
    """Adds a passkey; one that can prove who holds it also signs in by itself."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        style(self)
        self.fields["credential"] = CredentialField()
        self.fields["name"].max_length = LONGEST_NAME
        self.fields["name"].validators.append(MaxLengthValidator(LONGEST_NAME))
        self.fields["passwordless"].label = "Sign in with it alone, without a password"
        self.fields["passwordless"].help_text = "Needs a device that asks for a finger, a face or a PIN."

    def clean(self) -> dict[str, Any]:
        with refusing_malformed():
            cleaned: dict[str, Any] = super().clean()
        return cleaned
