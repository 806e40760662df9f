"""The WSGI application; logs at boot what keeps it from being ready, and keeps the control plane's pulse."""

import logging
import os

from django.core.wsgi import get_wsgi_application

from controlplane import private_files

private_files.use_private_umask()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_wsgi_application()


def _log_readiness() -> None:
    from controlplane.health import readiness_problems  # noqa: PLC0415  # the apps must be loaded before

    for problem in readiness_problems():
        logging.getLogger("controlplane").error("not ready at boot: %s", problem)


def _keep_pulse() -> None:
    from controlplane.heart import heart  # noqa: PLC0415  # as above

    heart.keep_beating()


_log_readiness()
_keep_pulse()
