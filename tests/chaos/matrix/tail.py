"""The ledger as it grows: each line is read once, so that a scene of many jobs can be watched."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..ledger import Ended, Line, Started, parse

if TYPE_CHECKING:
    from pathlib import Path

    from ..ledger import L, Ledger


class Tail:
    """What was written so far, by class; of each file the part that is whole lines."""

    def __init__(self, ledger: Ledger) -> None:
        self._directory = ledger.directory
        self._read: dict[Path, int] = {}
        self._lines: dict[type[Line], list[Line]] = defaultdict(list)
        self._running: dict[tuple[int, str, int], Started] = {}

    def of(self, cls: type[L]) -> list[L]:
        """Return the lines of one class, in no order but that of each process."""
        self._catch_up()
        return self._lines[cls]  # type: ignore[return-value]

    def running(self) -> dict[int, set[str]]:
        """Return the jobs whose processors have begun and not ended, by process; dead ones among them."""
        self._catch_up()
        found: dict[int, set[str]] = defaultdict(set)
        for pid, job_id, _ in self._running:
            found[pid].add(job_id)
        return found

    def _catch_up(self) -> None:
        for path in list(self._directory.iterdir()):
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                text = file.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in parse(whole.decode()):
                self._take(line)

    def _take(self, line: Line) -> None:
        self._lines[type(line)].append(line)
        match line:
            case Started():
                self._running[line.pid, line.job_id, line.fence] = line
            case Ended():
                self._running.pop((line.pid, line.job_id, line.fence), None)
            case _:
                pass
