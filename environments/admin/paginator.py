"""Lists that stay fast however long they are: nobody waits for an exact count, nobody reads page 2,000."""

from django.core.paginator import Paginator
from django.utils.functional import cached_property

#: Rows that a list counts and leads to at most; beyond, a filter or a search finds what is looked for.
MOST_ROWS = 10_000


class CappedPaginator(Paginator):  # type: ignore[type-arg]  # not generic when run
    """Counts up to MOST_ROWS rows and one more, which says that there are more than these."""

    @cached_property
    def count(self) -> int:
        """The rows, at most MOST_ROWS + 1."""
        rows = self.object_list
        if hasattr(rows, "order_by"):
            return int(rows.order_by().values("pk")[: MOST_ROWS + 1].count())
        return len(rows)

    @cached_property
    def num_pages(self) -> int:
        """The pages that lead to MOST_ROWS rows."""
        hits = min(self.count, MOST_ROWS)
        return max(1, -(-hits // self.per_page))

    @property
    def is_capped(self) -> bool:
        """Whether there are rows beyond."""
        return self.count > MOST_ROWS
