"""What PostgreSQL tells of how it finds the rows of a statement."""

from typing import Any

KINDS = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")


def rows_read(node: dict[str, Any]) -> int:
    """How many rows a node of EXPLAIN's plan and those below it looked at."""
    own = sum(node.get(kind, 0) for kind in KINDS) * node["Actual Loops"] if "Scan" in node["Node Type"] else 0
    return int(own) + sum(rows_read(each) for each in node.get("Plans", ()))
