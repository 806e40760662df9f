"""The benchmark behind `docs/performance.md`: the service against the floor below it, in turn and in one run.

`make bench` runs it; `python -m tests.bench --seconds 1 --rounds 1` sees in a minute that it works.
"""
