{% for name, value in variables %}export {{ name }}={{ value }}
{% endfor %}export API_KEY={{ api_key }}

# Runs in the foreground; Ctrl-C ends it. Your own program takes the place of the one below. Any worker takes what it needs
# from these three variables, such as the example that polls Temporal:
#   {{ temporal_tls }}python3 examples/temporal_worker.py
{% include "admin/workers/worker/commands/run.sh" %}$run python3 -u - <<'END'
{{ program }}END
