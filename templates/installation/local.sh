#!/usr/bin/env bash
# Starts a worker of the queue {{ task_queue }}. The first run installs {{ package }} {{ version }},
# about 700 MB, below ~/.control-plane-worker (WORKER_DIRECTORY names another place); later runs start at once.
#
#   export KUBIYA_API_KEY=...   # an API key of this queue, of its environment or of its organization
#   bash install-worker.sh
set -euo pipefail

{% include "installation/require_key.sh" %}
# A candidate has to prove itself by running: pyenv's shims are found and then fail.
python=
for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.13 python3.11 python3.10 python3 python; do
  if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo 'No Python 3.10 or newer was found (with its venv module; on Debian and Ubuntu a package of its own).' >&2
  echo 'Install one, or name it: PYTHON=/path/to/python3 bash install-worker.sh' >&2
  exit 1
fi

{% for name, value in environment %}export {{ name }}={{ value }}
{% endfor %}environment=${WORKER_DIRECTORY:-$HOME/.control-plane-worker}/{{ version }}
{% include "installation/install_and_run.sh" %}
