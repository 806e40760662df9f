"""The WSGI application: logs at boot what keeps it from being ready, and begins what it does beside requests."""

import logging
import os
import sys

from django.core.wsgi import get_wsgi_application

from controlplane.serving.garbage import garbage
from controlplane.startup import private_files

#: Seconds that a thread computes before another one's turn. A start leaves it at each call of the system, and has it
#: again behind whoever renders a page: with Python's own 5 ms it took more than twice as long beside such threads.
TURN = 0.002

sys.setswitchinterval(TURN)
private_files.use_private_umask()
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")
application = get_wsgi_application()


def _log_readiness() -> None:
    from controlplane.api.health import readiness_problems  # noqa: PLC0415  # the apps must be loaded before

    for problem in readiness_problems():
        logging.getLogger("controlplane").error("not ready at boot: %s", problem)


def _keep_pulse() -> None:
    from controlplane.serving.heart import heart  # noqa: PLC0415  # as above

    heart.keep_beating()


def _watch_gate() -> None:
    from controlplane.serving.gate import gate  # noqa: PLC0415  # as above

    gate.watch()


def _keep_looking() -> None:
    from controlplane.serving.notifier import notifier  # noqa: PLC0415  # as above
    from controlplane.serving.sweeper import sweeper  # noqa: PLC0415  # as above

    sweeper.keep_looking()
    notifier.keep_looking()


garbage.serve()
_log_readiness()
_watch_gate()
_keep_pulse()
_keep_looking()
