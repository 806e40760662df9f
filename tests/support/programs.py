"""Runs the programs that we hand out."""

from tests.support.faults import answer

KEY = "acp-the-key-of-this-test"
TAKEN = answer(204)
