"""Drills: what `docs/design/reliability.md` promises, tried on the running service under load and failure.

`python -m tests.drills NAME` runs one at its full size, `--quick` at the size that fits every change; each prints its
figure last. `make drills` runs all of them quickly, `make soak` at full size.
"""
