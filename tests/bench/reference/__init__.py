"""The reference floor: a bare WSGI application that does what a start and a heartbeat cannot do without.

It is a yardstick, so it is fixed: tables, statements and server of its own, no framework, and nothing of the product is
imported. A product that becomes slower cannot make it slower. It serves nobody.
"""

from tests.bench.reference.application import make_application

__all__ = ["make_application"]
