export API_KEY={{ api_key }}

# Runs in the foreground; Ctrl-C ends it. Your own image takes the place of {{ image }} and the program below.
{% if is_this_machine_only %}# The control plane answers on this machine only, so the container shares its network.
{% endif %}{% include "admin/workers/worker/commands/run.sh" %}$run docker run --rm --interactive --init --user 1000:1000 --name {{ name }}{% if is_this_machine_only %} --network host{% endif %} --env API_KEY \
{% for name, value in variables %}  --env {{ name }}={{ value }} \
{% endfor %}  {{ image }} python -u - <<'END'
{{ program }}END
