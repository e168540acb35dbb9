"""The demo on a terminal: one picture, drawn anew from the tally. Texts of others are `Text`, never markup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eventq.cli.demo.tally import STATES, Tally, Times
from eventq.cli.text import number, plain, seconds

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from rich.console import Console

__all__ = ["LiveView"]

_STYLES: Final = {"waiting": "cyan", "active": "blue", "delayed": "yellow", "completed": "green", "failed": "red"}
#: Large files shown while they are read, kinds of errors shown.
_MOST_READING: Final = 3
_MOST_ERRORS: Final = 4


class LiveView:
    """A picture that stays when it is done."""

    def __init__(self, console: Console, title: str, name_of: Callable[[str], str]) -> None:
        self._title = Text(plain(title), overflow="ellipsis", no_wrap=True)
        self._name_of = name_of
        # Drawn by us, in step with the events; rich's own thread would draw while a tally changes.
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._live.__exit__(kind, error, traceback)

    def draw(self, tally: Tally) -> None:
        """Draw the picture."""
        rows = Table.grid(padding=(0, 2))
        rows.add_column(style="dim", no_wrap=True)
        rows.add_column(no_wrap=True, overflow="ellipsis")
        rows.add_row("states", _states(tally))
        rows.add_row("throughput", Text(_rates(tally)))
        rows.add_row("wait", Text(_times(tally.waited)))
        rows.add_row("run", Text(_times(tally.ran)))
        rows.add_row("failures", _errors(tally))
        rows.add_row("events", Text(_events(tally)))
        rows.add_row("reading", self._reading(tally))
        if tally.trouble:
            rows.add_row("trouble", Text(plain(tally.trouble), style="red", no_wrap=True, overflow="ellipsis"))
        picture = Group(self._title, _bar(tally), rows)
        self._live.update(Panel(picture, title="eventq demo", title_align="left"), refresh=True)

    def _reading(self, tally: Tally) -> Text:
        running = list(tally.reading.items())[-_MOST_READING:]
        texts = [f"{plain(self._name_of(job_id))} {percent:.0f}%" for job_id, percent in running]
        return Text("  ".join(texts), no_wrap=True, overflow="ellipsis")


def _bar(tally: Tally) -> Table:
    row = Table.grid(padding=(0, 2), expand=True)  # a bar by itself does not end its line
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    done = Text(f"{number(tally.ended)} of {number(tally.total)}")
    row.add_row(ProgressBar(total=max(1, tally.total), completed=tally.ended), done)
    return row


def _states(tally: Tally) -> Text:
    return Text("  ").join(Text(f"{state} {number(tally.states[state])}", style=_STYLES[state]) for state in STATES)


def _rates(tally: Tally) -> str:
    now, overall = number(tally.rate_now), number(tally.rate)
    return f"{now} jobs/s now, {overall} jobs/s over all, {tally.bytes / 1e6:.1f} MB of text"


def _times(times: Times) -> str:
    return f"p50 {seconds(times.percentile(0.5))}  p99 {seconds(times.percentile(0.99))}"


def _errors(tally: Tally) -> Text:
    most = tally.failed_attempts.most_common(_MOST_ERRORS)
    texts = [f"{plain(name)} {number(count)} attempts, {number(tally.errors[name])} jobs" for name, count in most]
    return Text("  ".join(texts) or "none", style=_STYLES["failed"] if most else "")


def _events(tally: Tally) -> str:
    lost = "none lost" if not (tally.gaps or tally.missing) else f"{number(max(tally.lost, tally.missing))} lost"
    return f"{number(tally.seen)} seen, {lost}"
