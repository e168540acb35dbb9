"""Clocks that are wrong, and jump: a server or a process under libfaketime, whose wall clock the test sets while it runs.

Monotonic clocks stay as they are: nobody can set those of a real machine either, and the ledger is timed by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..servers import TestServer

if TYPE_CHECKING:
    from ..servers import ServerKind

_LIBRARY: Final = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def faketime_missing_reason() -> str | None:
    """Say what to install to have wrong clocks; None if it is there."""
    return None if _LIBRARY else "no libfaketime (Debian: apt-get install faketime)"


class WrongClock:
    """A wall clock that is so many seconds ahead of the machine's, as a file says, which is read again after a second at most; or, if
    it is to jump at once, at every look at the clock, which is dear.
    """

    def __init__(self, path: Path, offset: float = 0.0, *, at_once: bool = False) -> None:
        self._path = path
        self._at_once = at_once
        self.offset = 0.0
        self.set(offset)

    def set(self, offset: float) -> None:
        """Let it jump to so many seconds ahead; negative: behind."""
        new = self._path.with_suffix(".new")
        new.write_text(f"{offset:+.3f}\n")
        new.rename(self._path)  # nobody reads half of it
        self.offset = offset

    @property
    def environment(self) -> dict[str, str]:
        """The variables that put a process on this clock."""
        return {
            "LD_PRELOAD": str(_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            **({"FAKETIME_NO_CACHE": "1"} if self._at_once else {"FAKETIME_CACHE_DURATION": "1"}),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }


class WrongServer(TestServer):
    """A server on a clock that can be set."""

    def __init__(self, kind: ServerKind, *args: str) -> None:
        super().__init__(kind, *args)
        self.clock = WrongClock(self.directory / "clock", at_once=True)

    def _command(self) -> list[str | Path]:
        return ["env", *(f"{name}={value}" for name, value in self.clock.environment.items()), *super()._command()]
