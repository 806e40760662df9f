{% for name, value in variables %}export {{ name }}={{ value }}
{% endfor %}export API_KEY={{ api_key }}

# Starts the worker once and prints the status of the answer. The key goes through a pipe: in the list of processes,
# other users of the machine would see it.
printf 'Authorization: Bearer %s' "$API_KEY" |
  curl -sS -o /dev/null -w '%{http_code}\n' -X POST -H @- -H 'Content-Type: application/json' \
    -d "{\"system_info\": {\"hostname\": \"$(hostname)\"}}" "$CONTROL_PLANE_URL/api/v1/workers/$WORKER_ID/start"

# Any worker takes what it needs from these three variables, such as the example that polls Temporal:
#   {% if is_without_tls %}TEMPORAL_TLS=false {% endif %}python3 examples/temporal_worker.py
