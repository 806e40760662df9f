"""What every request passes, from its client to its page. May import all other rooms."""

from collections.abc import Callable

from django.http import HttpRequest, HttpResponseBase

type Handler = Callable[[HttpRequest], HttpResponseBase]
