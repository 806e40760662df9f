"""Looks again and again what has happened, and tells whoever wants to know."""

from controlplane.serving.background import Background
from workers.admin.links import address_of
from workers.notifications.passes import lookout_lease, make_pass


class Notifier(Background):
    """The part that one process has in it."""

    name = "lookout"
    first_after, interval = 10.0, 5.0

    def __init__(self) -> None:
        self._lease = lookout_lease()

    def work(self) -> bool:
        """Looks and sends if it is due and this process's turn; whether it did."""
        if not self._lease.take():
            return False
        make_pass(self._lease, address_of)
        return True


notifier = Notifier()
