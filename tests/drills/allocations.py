"""The service's application, which also tells at /allocated how much it holds: what only the process itself can count."""

import gc
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from controlplane.wsgi import application as service


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Blocks of Python's allocator, after what is garbage is gone."""
    if environ["PATH_INFO"] != "/allocated":
        return service(environ, start_response)
    gc.collect()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(sys.getallocatedblocks()).encode()]
