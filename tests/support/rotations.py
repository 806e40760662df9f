"""Rotates encryption, and looks at what is sealed."""

from typing import Any

from django.utils import timezone

from environments.encryption import Secret
from environments.models import AuditEvent, DataKey, LiteLLMConnection, TemporalConnection
from environments.sealing.data_keys import open_api_key
from environments.sealing.rotation import Progress, replace_data_keys, rewrap_data_keys
from tests.support.factories import ACTOR, Fleet

SEALED_MODELS = (TemporalConnection, LiteLLMConnection)


def rewrap() -> list[Progress]:
    return list(rewrap_data_keys(actor=ACTOR, now=timezone.now()))


def replace() -> list[Progress]:
    now = timezone.now()
    return list(replace_data_keys(made_before=now, actor=ACTOR, now=now))


def rows() -> list[Any]:
    models = (DataKey, *SEALED_MODELS, AuditEvent)
    return [row for model in models for row in model._default_manager.order_by("pk").values()]


def secrets_of(fleet: Fleet) -> tuple[Secret, Secret]:
    return (
        open_api_key(TemporalConnection.objects.get(pk=fleet.temporal.pk)),
        open_api_key(LiteLLMConnection.objects.get(pk=fleet.litellm.pk)),
    )


def expected_secrets(fleet: Fleet) -> tuple[Secret, Secret]:
    return Secret(fleet.temporal_secret), Secret(fleet.litellm_secret)
