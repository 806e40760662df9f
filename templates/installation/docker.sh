#!/usr/bin/env bash
# Starts a worker of the queue {{ task_queue }} in a container, in the foreground; Ctrl-C ends it.
# The container installs {{ package }} {{ version }}, about 700 MB, each time it is run.
#
#   export KUBIYA_API_KEY=...   # an API key of this queue, of its environment or of its organization
#   bash run-worker.sh
set -euo pipefail

{% include "installation/require_key.sh" %}{% if is_this_machine_only %}# The control plane answers on this machine only, so the container shares its network.
{% endif %}exec docker run --rm --init --user 1000:1000 --env HOME=/tmp{% if is_this_machine_only %} --network host{% endif %} \
  --env KUBIYA_API_KEY \
{% for name, value in environment %}  --env {{ name }}={{ value }} \
{% endfor %}  {{ image }} bash -euo pipefail -c {{ container_script }}
