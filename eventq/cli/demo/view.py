"""What is shown while the demo runs: a live picture on a terminal, a line a second elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

from eventq.cli.demo.tally import STATES, Tally
from eventq.cli.text import number, plain, shorten

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

__all__ = ["View", "choose_view"]

#: Seconds between two lines where there is no terminal.
LINE_EVERY: Final = 1.0


class View(Protocol):
    """Something to look at, from enter to exit."""

    def draw(self, tally: Tally) -> None:
        """Show where things stand; called some ten times a second."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def choose_view(title: str, name_of: Callable[[str], str]) -> View:
    """Return the view for this stdout. name_of: the file of a job id."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal and not console.is_dumb_terminal and sys.stdout.isatty():
        from eventq.cli.demo.live import LiveView

        return LiveView(console, title, name_of)
    return PlainView(title)


class PlainView:
    """A line at most once a second."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        print(plain(self._title), flush=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        return None

    def draw(self, tally: Tally) -> None:
        """Print a line if the last one is a second old."""
        now = time.monotonic()
        if now - self._shown < LINE_EVERY:
            return
        self._shown = now
        states = "  ".join(f"{state} {number(tally.states[state])}" for state in STATES)
        trouble = f"  {plain(shorten(tally.trouble, 120))}" if tally.trouble else ""
        print(f"{now - self._began:5.1f} s  {states}  {number(tally.rate_now)} jobs/s{trouble}", flush=True)
