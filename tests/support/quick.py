"""The quick run, `make quick`: a few rows of each table and a few examples of what is random, chosen by the seed.

A person waits for it between two edits. Each behaviour is tried; `make test` tries it with everything.
"""

import os
import random
from collections import defaultdict

import pytest

IS_QUICK = os.environ.get("TEST_QUICK") == "yes"
#: How many rows of a parametrized test are tried, and at most how many examples of a random one.
ROWS, EXAMPLES = 2, 10


def examples(count: int) -> int:
    """How many examples a test is given by Hypothesis where the whole run gives it `count`."""
    return min(count, EXAMPLES) if IS_QUICK else count


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out all but a few rows of each test, of those that the command line has not left out already."""
    if not IS_QUICK:
        return
    rows: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        rows[item.nodeid.partition("[")[0]].append(item)
    seed = config.option.hypothesis_seed
    chosen = {
        item
        for name, own in rows.items()
        for item in random.Random(f"{seed} {name}").sample(own, min(ROWS, len(own)))  # noqa: S311  # no secret
    }
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = [item for item in items if item in chosen]
