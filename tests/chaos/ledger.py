"""The ledger of a run under faults: what producers, processors, readers and the test itself saw, told apart from eventq.

Every process appends to a file of its own, one line per write(2): what a killed process wrote stays, and at most the last line
of its file is cut short. Times are CLOCK_BOOTTIME, which all processes of a machine share and nobody can set.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

#: Elsewhere than on Linux: the nearest there is.
BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_ns() -> int:
    """Return the time since the machine started."""
    return time.clock_gettime_ns(BOOTTIME)


@dataclass(frozen=True, slots=True)
class Line:
    """What every line says: when, and by which process."""

    ns: int
    pid: int


@dataclass(frozen=True, slots=True)
class Offered(Line):
    """A producer is about to add a job under an id of its own."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Acknowledged(Line):
    """An add returned."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Started(Line):
    """A processor was called."""

    job_id: str
    attempt: int
    fence: int
    worker: str


@dataclass(frozen=True, slots=True)
class Ended(Line):
    """A processor ended: `returned`, or the class of what it raised."""

    job_id: str
    fence: int
    how: str


@dataclass(frozen=True, slots=True)
class Seen(Line):
    """A durable reader was given an event."""

    reader: str
    seq: int
    kind: str
    job_ids: tuple[str, ...]
    previous: str


@dataclass(frozen=True, slots=True)
class CountedLost(Line):
    """A durable reader was told that so many events after `seq` are lost to it."""

    reader: str
    seq: int
    count: int


@dataclass(frozen=True, slots=True)
class StaleWrite(Line):
    """Somebody wrote under a token that was no longer the job's: settle, renew, progress, log, update."""

    what: str
    job_id: str
    accepted: bool


@dataclass(frozen=True, slots=True)
class Died(Line):
    """A process was killed, or found dead: what it had begun and not ended by then it never ended."""

    victim: int
    cause: str


_CLASSES: dict[str, Callable[..., Line]] = {
    cls.__name__: cls for cls in (Offered, Acknowledged, Started, Ended, Seen, CountedLost, StaleWrite, Died)
}
L = TypeVar("L", bound=Line)


class Run(Protocol):
    """What the ledger asks of a job that runs."""

    @property
    def id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def fence(self) -> int: ...


class Happening(Protocol):
    """What the ledger asks of an event: the facts that its kind does not have may be missing."""

    kind: ClassVar[str]

    @property
    def seq(self) -> int: ...


class Ledger:
    """One directory of such files. Safe in any thread and after a fork; nothing is kept open."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(exist_ok=True)

    def offered(self, *job_ids: str) -> None:
        """Write that these ids are about to be added."""
        for job_id in job_ids:
            self._append(Offered, job_id)

    def acknowledged(self, *job_ids: str) -> None:
        """Write that these adds returned."""
        for job_id in job_ids:
            self._append(Acknowledged, job_id)

    @contextlib.contextmanager
    def run(self, job: Run, worker: str = "") -> Generator[None]:
        """Write the start of a run, and its end, however it ends."""
        self._append(Started, job.id, job.attempt, job.fence, worker)
        try:
            yield
        except BaseException as error:
            self._append(Ended, job.id, job.fence, type(error).__name__)
            raise
        self._append(Ended, job.id, job.fence, "returned")

    def seen(self, reader: str, event: Happening) -> None:
        """Write an event that a durable reader was given, a LostEvent as what it is."""
        if event.kind == "lost":
            self._append(CountedLost, reader, event.seq, getattr(event, "count", 0))
            return
        job_id: str = getattr(event, "job_id", "")
        job_ids: Sequence[str] = [job_id] if job_id else getattr(event, "job_ids", ())
        self._append(Seen, reader, event.seq, event.kind, list(job_ids), getattr(event, "previous", ""))

    def stale_write(self, what: str, job_id: str, *, accepted: bool) -> None:
        """Write that a stale token was offered, and whether anything came of it."""
        self._append(StaleWrite, what, job_id, accepted)

    def died(self, victim: int, cause: str, ns: int | None = None) -> None:
        """Write that a process is dead, since `ns` if that is known."""
        self._append(Died, victim, cause, ns=ns)

    def lines(self) -> list[Line]:
        """Return everything that was written so far, by time."""
        found = [line for path in self.directory.iterdir() for line in parse(path.read_text())]
        return sorted(found, key=lambda line: line.ns)

    def of(self, cls: type[L], job_id: str | None = None) -> list[L]:
        """Return the lines of one class, of one job if it is named."""
        return [x for x in self.lines() if isinstance(x, cls) and (job_id is None or getattr(x, "job_id", None) == job_id)]

    def _append(self, cls: type[Line], *facts: Any, ns: int | None = None) -> None:
        line = json.dumps([cls.__name__, now_ns() if ns is None else ns, os.getpid(), *facts]).encode() + b"\n"
        file = os.open(self.directory / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            written = os.write(file, line)
        finally:
            os.close(file)
        assert len(line) == written, "the ledger is incomplete"


def parse(text: str) -> list[Line]:
    """Return the lines of one file; what follows the last line's end was cut short by a kill."""
    whole = text[: text.rfind("\n") + 1].splitlines()
    return [_line(*words) for words in map(json.loads, whole)]


def _line(name: str, *facts: Any) -> Line:
    return _CLASSES[name](*(tuple(fact) if isinstance(fact, list) else fact for fact in facts))
