"""What is known of a queue's settings: the members that the command line applies when it starts a worker."""

from typing import Any

from django.core.exceptions import ValidationError

PROXY = "enable_local_litellm_proxy"
CONFIG = "litellm_config"
#: Whole numbers, and between which.
RANGES = {"local_proxy_timeout_seconds": (5, 60), "local_proxy_max_retries": (1, 10)}
#: Clients whose settings are texts write these, too.
TRUTHS = {"true": True, "false": False}


def check_queue_settings(value: Any) -> None:
    """ValidationError when a known member is none that the command line could apply; the others are free."""
    if not isinstance(value, dict):
        return  # which is told of already
    is_wanted = _boolean(value.get(PROXY, False))
    if is_wanted is None:
        msg = f"{PROXY} has to be true or false."
        raise ValidationError(msg)
    if is_wanted and not value.get(CONFIG):
        msg = f"{PROXY} needs a {CONFIG}."
        raise ValidationError(msg)
    for name, (least, most) in RANGES.items():
        if name in value and not _is_within(value[name], least, most):
            msg = f"{name} has to be a whole number from {least} to {most}."
            raise ValidationError(msg)
    if isinstance(config := value.get(CONFIG), dict) and not _has_models(config):
        msg = f"{CONFIG} needs a model_list, each with a model_name and litellm_params."
        raise ValidationError(msg)


def _boolean(value: Any) -> bool | None:
    return TRUTHS.get(value.lower()) if isinstance(value, str) else value if isinstance(value, bool) else None


def _is_within(value: Any, least: int, most: int) -> bool:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return text.isascii() and text.isdigit() and len(text) <= len(str(most)) and least <= int(text) <= most


def _has_models(config: dict[str, Any]) -> bool:
    models = config.get("model_list")
    return isinstance(models, list) and all(
        isinstance(model, dict) and isinstance(model.get("model_name"), str) and "litellm_params" in model
        for model in models
    )
