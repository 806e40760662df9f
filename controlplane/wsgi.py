"""The WSGI application; logs at boot what keeps it from being ready."""

import logging
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_wsgi_application()


def _log_readiness() -> None:
    from controlplane.health import readiness_problems  # noqa: PLC0415  # the apps must be loaded before

    for problem in readiness_problems():
        logging.getLogger("controlplane").error("not ready at boot: %s", problem)


_log_readiness()
