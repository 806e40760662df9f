"""Starts a worker, tells the control plane that it lives, and says goodbye. It does no work: yours goes where it says so."""

import getpass
import json
import os
import platform
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

CONTROL_PLANE_URL = os.environ.get("CONTROL_PLANE_URL", {{ variables.CONTROL_PLANE_URL }})
WORKER_ID = os.environ.get("WORKER_ID", {{ variables.WORKER_ID }})
API_KEY = os.environ.get("API_KEY") or getpass.getpass("API key: ")
SYSTEM_INFO = {
    "hostname": socket.gethostname(),
    "pid": os.getpid(),
    "os_name": platform.system(),
    "python_version": platform.python_version(),
}
REFUSED = {401, 403, 404, 409}


def call(verb, body):
    request = urllib.request.Request(
        f"{CONTROL_PLANE_URL}/api/v1/workers/{WORKER_ID}/{verb}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read() or "null")


def end(number, frame):
    raise SystemExit


signal.signal(signal.SIGTERM, end)
try:
    configuration = call("start", {"system_info": SYSTEM_INFO})
except urllib.error.HTTPError as error:
    sys.exit(f"The start was refused: {error.code} {error.read().decode()}")
except urllib.error.URLError as error:
    sys.exit(f"The control plane cannot be reached: {error.reason}")
print(f"Started as worker {configuration['worker_id']} of queue {configuration['worker_queue_name']}.", flush=True)

# Here connect to configuration["temporal_host"] with configuration["temporal_api_key"], and let your worker poll
# configuration["task_queue_name"] in configuration["temporal_namespace"].

try:
    while True:
        try:
            call("heartbeat", {"status": "idle", "system_info": SYSTEM_INFO})
        except urllib.error.HTTPError as error:
            print(f"Heartbeat refused: {error.code} {error.read().decode()}", file=sys.stderr)
            if error.code in REFUSED:
                break
        except urllib.error.URLError as error:
            print(f"Heartbeat not delivered: {error.reason}", file=sys.stderr)
        time.sleep(configuration["heartbeat_interval"])
except KeyboardInterrupt:
    pass
finally:
    try:
        call("disconnect", {"reason": "finished", "exit_code": 0, "system_info": SYSTEM_INFO})
    except urllib.error.URLError as error:
        print(f"Goodbye not delivered: {error.reason}", file=sys.stderr)
