"""Progress of commands: a bar on a terminal, plain lines elsewhere."""

import io

from django.core.management.base import OutputWrapper

from environments.management.progress import ProgressDisplay


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, *steps: tuple[int, int], **options: float) -> str:
    progress = ProgressDisplay(OutputWrapper(stream), **options)
    for done, total in steps:
        progress.show("rows", done, total)
    return stream.getvalue()


def test_a_terminal_gets_a_bar_in_place_that_stays_when_all_is_done() -> None:
    text = shown(Terminal(), (500, 2_000), (2_000, 2_000))
    assert text == f"rows [{'#' * 7}{'.' * 23}] 500 of 2,000\rrows [{'#' * 30}] 2,000 of 2,000\n"


def test_a_bar_is_not_drawn_more_often_than_one_sees() -> None:
    assert shown(Terminal(), *((done, 1_000) for done in range(1_000))).count("\r") < 100


def test_a_file_gets_plain_lines() -> None:
    assert shown(io.StringIO(), (500, 2_000), (2_000, 2_000)) == "rows: 500 of 2000\nrows: 2000 of 2000\n"


def test_lines_are_held_back_but_for_the_first_and_the_last() -> None:
    text = shown(io.StringIO(), *((done, 1_000) for done in range(1, 1_001)), seconds_between_lines=60)
    assert text == "rows: 1 of 1000\nrows: 1000 of 1000\n"


def test_nothing_to_do_is_done() -> None:
    assert shown(Terminal(), (0, 0)) == f"rows [{'#' * 30}] 0 of 0\n"
