if [ ! -e "$environment/is-installed" ]; then
  "$python" -m venv --clear "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check uv
  # Packages of the days when the worker was released: what runs does not depend on the day of the installation.
  "$environment/bin/uv" pip install --quiet --python "$environment/bin/python" --exclude-newer {{ packages_until }}{% for requirement in requirements %} \
    "{{ requirement }}"{% endfor %}
  touch "$environment/is-installed"
fi
exec "$environment/bin/{{ program }}"
