"""What the console's templates use."""

from datetime import datetime

from django import template
from django.utils.safestring import SafeString

from environments import moments

register = template.Library()


@register.filter
def moment(value: datetime | None, nothing: str = "never") -> SafeString:
    """`{{ row.started_at|moment }}`: how long ago, with the exact time as its tooltip."""
    return moments.moment(value, nothing)
