# The commands of this project; `make` lists them. Nothing is written outside this folder.

PYTHON_CANDIDATES = $(PYTHON) python3.14 python3.13 python3.12 python3 python $(wildcard $(HOME)/.pyenv/versions/*/bin/python3)
IS_SUITABLE = import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.version_info < (3, 12))
IN_VENV = .venv/bin/python -m
# Three for two cores: tests with a browser or a server mostly wait.
PYTEST = $(IN_VENV) pytest --numprocesses 3 --dist loadgroup $(ARGS)
UV_LOCK = $(IN_VENV) uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate pyproject.toml

export PIP_CACHE_DIR = $(CURDIR)/var/cache/pip
export UV_CACHE_DIR = $(CURDIR)/var/cache/uv
export TMPDIR = $(CURDIR)/var/tmp
# The tests start hundreds of processes, none of which is to compile all modules anew.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help run quick test test-sqlite coverage test-upstream drills soak bench measure-console measure-ledger lint lock release venv runtime development

help:
	@echo 'make run    set up everything that is missing and serve on http://127.0.0.1:8000 (PORT=9000 make run)'
	@echo 'make quick  try each behaviour that needs neither a browser nor other processes, on SQLite, with a few rows of each table (ARGS="-k name" chooses some)'
	@echo 'make test   run all tests on PostgreSQL'
	@echo 'make test-sqlite  run on SQLite the tests of what can differ there'
	@echo 'make coverage  run all tests on PostgreSQL, and print which lines and branches of the product none of them reaches'
	@echo 'make test-upstream   install the existing worker and SDK into var/upstream, and run both against this one'
	@echo 'make drills try quickly what docs/design/reliability.md promises, on real servers (ARGS=crash chooses one)'
	@echo 'make soak   the same at full size'
	@echo 'make bench  measure starts and heartbeats against a fixed floor (needs wrk; ARGS="--seconds 1 --rounds 1" is quick)'
	@echo 'make measure-console time the console with 100,000 workers and 1,000,000 starts on PostgreSQL'
	@echo 'make measure-ledger  time starts, queries and pruning with 10,000,000 starts on PostgreSQL'
	@echo 'make lint   check style, format, types, the direction of imports and the Dockerfile'
	@echo 'make release check that HEAD is a release, write its archive, and say what to do next'
	@echo 'make lock   write requirements*.txt from pyproject.toml'

run: runtime
	@exec .venv/bin/python manage.py quickstart $(ARGS)

quick: development
	TEST_QUICK=yes TEST_DATABASE=sqlite $(PYTEST) -m 'not browser and not processes and not walk'

test: development
	@for program in chromium-headless-shell chromium chromium-browser google-chrome; do command -v $$program >/dev/null && exit 0; done; \
	echo 'The browser tests need Chromium. On Debian: apt-get install chromium-headless-shell; elsewhere chromium' >&2; exit 1
	TEST_DATABASE=postgresql $(PYTEST)

# Only the files that have any are collected, which takes a third of the time.
test-sqlite: development
	TEST_DATABASE=sqlite $(PYTEST) -m sqlite $$(grep -rl --include='test_*.py' 'mark\.sqlite' tests)

# Not in CI, which it would make half as long again: run it before a release.
coverage: development
	TEST_DATABASE=postgresql $(PYTEST) --cov --cov-report=term

# Half a gigabyte from the Python Package Index, once.
test-upstream: development
	TEST_UPSTREAM=yes TEST_DATABASE=sqlite $(IN_VENV) pytest tests/upstream $(ARGS)

drills: development
	$(IN_VENV) tests.drills --quick $(ARGS)

soak: development
	$(IN_VENV) tests.drills $(ARGS)

bench: development
	$(IN_VENV) tests.bench $(ARGS)

# The console's pages with 100,000 workers and 1,000,000 starts on PostgreSQL: about ten minutes, most of it for seeding.
measure-console: development
	$(IN_VENV) tests.measurements.console $(ARGS)

# A ledger of 10,000,000 starts on PostgreSQL: about ten minutes and 30 GB of disk.
measure-ledger: development
	$(IN_VENV) tests.measurements.ledger $(ARGS)

# mypy's Django plugin loads the settings, which do not load without secrets.
lint: development
	$(IN_VENV) ruff check
	$(IN_VENV) ruff format --check
	SECRET_KEY=$$(.venv/bin/python manage.py generate_key secret) \
	ENCRYPTION_KEYS=$$(.venv/bin/python manage.py generate_key encryption) \
	API_KEY_SIGNING_KEYS=$$(.venv/bin/python manage.py generate_key signing) \
	$(IN_VENV) mypy
	.venv/bin/lint-imports --no-logo --cache-dir .cache/import-linter
	.venv/bin/hadolint deploy/Dockerfile

lock: development
	$(UV_LOCK) -o requirements.txt --python-version 3.12
	$(UV_LOCK) --extra tracing -o requirements-tracing.txt --python-version 3.12
	$(UV_LOCK) --extra tracing --group dev -o requirements-dev.txt --python-version 3.12

release: lint lock
	@PYTHONPATH=. .venv/bin/python .ci/release.py

# A candidate has to prove itself by running: pyenv's shims are found and then fail.
venv:
	@umask 077 && mkdir -p '$(TMPDIR)'
	@.venv/bin/python -c 'import pip' 2>/dev/null && exit 0; \
	for candidate in $(PYTHON_CANDIDATES); do \
	  if "$$candidate" -c '$(IS_SUITABLE)' 2>/dev/null; then \
	    echo "Making .venv with $$("$$candidate" --version)"; \
	    exec "$$candidate" -m venv --clear .venv; \
	  fi; \
	done; \
	{ echo 'No Python 3.12 or newer was found (with its venv module; on Debian and Ubuntu a package of its own).'; \
	  echo 'Install one, for instance: apt-get install python3 python3-venv; uv python install 3.13; pyenv install 3.13'; \
	  echo 'Or name it: PYTHON=/path/to/python3 make run'; } >&2; exit 1

# The copy in .venv tells which lock is installed; the development lock contains the other one.
runtime: venv
	@cmp -s requirements.txt .venv/requirements.txt || { \
	  echo 'Installing requirements.txt'; \
	  $(IN_VENV) pip install --quiet --require-hashes -r requirements.txt && cp requirements.txt .venv/; }

development: venv
	@cmp -s requirements-dev.txt .venv/requirements-dev.txt || { \
	  echo 'Installing requirements-dev.txt'; \
	  $(IN_VENV) pip install --quiet --require-hashes -r requirements-dev.txt && \
	  cp requirements.txt requirements-dev.txt .venv/; }
