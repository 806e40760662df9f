if [ ! -e "$environment/is-installed" ]; then
  "$python" -m venv --clear "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
  # Packages of the days when the worker was released: what runs does not depend on the day of the installation.
  "$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --exclude-newer {{ packages_until }}{% for requirement in requirements %} \
    "{{ requirement }}"{% endfor %}
  touch "$environment/is-installed"
fi

# With job control a child does not ignore SIGINT: whatever ends this script ends the worker in the same way.
set -m
run() {
  "$@" </dev/null &
  wait "$!"
}
stop() {
  trap '' HUP INT TERM
  # `$!` is the newest child from the moment it is born; before the first one, and between two, there is none to end.
  if kill "-$1" "${!-}" 2>/dev/null; then
    wait "$!"
    exit
  fi
  trap - "$1"
  kill "-$1" "$$"
}
trap 'stop HUP' HUP
trap 'stop INT' INT
trap 'stop TERM' TERM

# The worker ends when its start is not answered, as while the control plane restarts, and when it does not reach Temporal.
longest=1
until began=$SECONDS && run "$environment/bin/{{ program }}"; do
  [ $((SECONDS - began)) -lt 600 ] || longest=1
  longest=$((longest < 64 ? longest * 2 : 120))
  # Any time up to the longest, so that a thousand workers that wait for one control plane do not come all at once.
  pause=$((RANDOM % longest + 1))
  echo "The worker has ended; it is started again in $pause s." >&2
  run sleep "$pause"
done
