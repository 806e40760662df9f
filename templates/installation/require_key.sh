if [ -z "${KUBIYA_API_KEY:-}" ]; then
  echo 'Set KUBIYA_API_KEY to an API key of this queue, of its environment or of its organization, and run this again.' >&2
  exit 1
fi
