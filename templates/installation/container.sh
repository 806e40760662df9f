python=python
environment=$HOME/worker
{% include "installation/install_and_run.sh" %}
