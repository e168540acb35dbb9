"""What commands print: tables and facts for people, JSON for programs. Every text that comes in is data and never markup."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.text import plain
from eventq.limits import LAST_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

__all__ = ["Column", "Styled", "iso", "local_time", "print_facts", "print_json", "print_json_line", "print_table"]

STYLES: Final = {
    "waiting": "cyan", "prioritized": "cyan", "active": "blue", "delayed": "yellow", "paused": "magenta", "completed": "green",
    "failed": "red", "ok": "green", "unknown": "dim", "warning": "yellow", "problem": "bold red",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """A column's head. right: for numbers. cut, wraps: on a narrow terminal it may be shortened, or go on in the next line."""

    head: str
    right: bool = False
    cut: bool = False
    wraps: bool = False


@dataclass(frozen=True, slots=True)
class Styled:
    """A cell in a colour; the style is ours, the text need not be."""

    text: str
    style: str


Cell = str | Styled


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    """Print a table: fitted to the terminal where there is one, elsewhere a line per row with nothing left out."""
    cells = list(rows)
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    texts = [[column.head for column in columns], *([_text(cell) for cell in row] for row in cells)]
    widths = [max(len(row[at]) for row in texts) for at in range(len(columns))]
    for row in texts:
        parts = zip(row, widths, columns, strict=True)
        print("  ".join(text.rjust(width) if column.right else text.ljust(width) for text, width, column in parts).rstrip())


def _draw(columns: Sequence[Column], rows: Iterable[Sequence[Cell]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        # rich takes the room that it lacks from columns that may wrap: those whose texts are then cut instead.
        may_shrink = column.cut or column.wraps
        table.add_column(column.head, justify="right" if column.right else "left", overflow="fold", no_wrap=not may_shrink)
    for row in rows:
        texts = [Text(_text(cell), style=cell.style if isinstance(cell, Styled) else "") for cell in row]
        for text, column in zip(texts, columns, strict=True):
            if column.cut:
                text.no_wrap, text.overflow = True, "ellipsis"
        table.add_row(*texts)
    _console().print(table)


def print_facts(facts: Iterable[tuple[str, Cell]]) -> None:
    """Print a name and a text per line; what the text holds of line ends is kept, and set in under it."""
    rows = [(name, cell) for name, cell in facts]
    width = max(len(name) for name, _ in rows)
    for name, cell in rows:
        lines = (cell.text if isinstance(cell, Styled) else cell).split("\n")
        for index, line in enumerate(lines):
            shown = f"{'' if index else name:{width}}  {plain(line)}".rstrip()
            _print(shown, cell.style if isinstance(cell, Styled) and sys.stdout.isatty() else "")


def _print(line: str, style: str) -> None:
    if not style:
        print(line)
        return
    from rich.text import Text

    _console().print(Text(line, style=style), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document, in ASCII."""
    print(json.dumps(value, indent=2, default=str))


def print_json_line(value: Any) -> None:
    """Print one JSON object on one line, in ASCII."""
    print(json.dumps(value, default=str))


def iso(ms: int) -> str | None:
    """Return a time for programs; None for none (0)."""
    if not ms:
        return None
    return _moment(ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def local_time(ms: int) -> str:
    """Return a time for people, in their zone, which is named."""
    at = _moment(ms).astimezone()
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03d} {at:%Z}"


def _moment(ms: int) -> datetime:
    # What is damaged may be later than any calendar goes.
    return datetime.fromtimestamp(min(max(ms, 0), LAST_MS) / 1000, UTC)


def _text(cell: Cell) -> str:
    return plain(cell.text if isinstance(cell, Styled) else cell)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)
