"""The benchmark behind `docs/design/performance.md`: the product against a fixed floor, in turn and in one run.

`make bench` runs it; `python -m tests.bench --seconds 1 --rounds 1 --engine postgresql` sees in a minute that it works.
"""
