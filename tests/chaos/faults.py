"""What a fault proxy can be told to do: faults, when they strike, and on which requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum

from eventq.scripts import load_script


class Fault(StrEnum):
    """What can happen to a request, to its reply, or to a connection."""

    LOSE_REQUEST = "request lost"
    LOSE_REPLY = "reply lost"
    DUPLICATE = "request sent twice"
    REPLAY = "earlier request sent again"
    LATE = "request late, its client gone"
    DELAY_REQUEST = "request delayed"
    DELAY_REPLY = "reply delayed"
    SPLIT_REQUEST = "request split"
    SPLIT_REPLY = "reply split"
    CUT_REQUEST = "request cut"
    CUT_REPLY = "reply cut"
    CLIENT_VANISHES = "client vanished"
    BLACK_HOLE = "connection in a black hole"


#: Those that are done when the request comes, whatever the reply will be.
STRIKE_REQUESTS = (Fault.LOSE_REQUEST, Fault.CUT_REQUEST, Fault.DUPLICATE, Fault.DELAY_REQUEST, Fault.SPLIT_REQUEST)


class Ending(Enum):
    """What becomes of a connection that lost something: closed, reset, or open and silent for ever."""

    CLOSE = "closed"
    RESET = "reset"
    SILENCE = "silent"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as filters see it: the frame, its words, and the name its connection gave itself."""

    frame: bytes
    words: tuple[bytes, ...]
    client: str

    @property
    def command(self) -> str:
        """The command, in capitals."""
        return self.words[0].decode().upper()

    @property
    def script(self) -> str:
        """The SHA-1 of the script it calls; nothing if it calls none."""
        return self.words[1].decode() if calls_a_script(self) else ""

    @property
    def new_name(self) -> str:
        """The name that it gives its connection; nothing if it is another request."""
        return self.words[2].decode() if self.command == "CLIENT" and self.words[1].upper() == b"SETNAME" else ""

    def __str__(self) -> str:
        return f"{self.command} {self.script[:8]}".rstrip()


Filter = Callable[[Request], bool]


def calls_a_script(request: Request) -> bool:
    """Filter: every EVALSHA, those that read too; so not the set-up of a connection, nor what blocks."""
    return request.command in ("EVALSHA", "EVALSHA_RO")


def calls(*scripts: str) -> Filter:
    """Filter: EVALSHA of one of these scripts, by name."""
    shas = {load_script(name).sha for name in scripts}
    return lambda request: request.script in shas


def is_command(*commands: str) -> Filter:
    """Filter: one of these commands."""
    return lambda request: request.command in commands


def is_work(request: Request) -> bool:
    """Filter: everything but the set-up of a connection and the loading of scripts."""
    return request.command not in ("CLIENT", "INFO", "SCRIPT", "SELECT", "HELLO", "AUTH")


@dataclass(slots=True)
class Rule:
    """A fault and when it strikes: with a probability, the next `times` only, on the requests that `when` picks.

    then: after a loss. keep_last: of the replies to a request sent twice, forward the last instead of the first.
    seconds: of a delay, between the pieces of a split frame, until a late request arrives. size: of the pieces.
    at: bytes before a cut, anywhere if None.
    """

    fault: Fault
    probability: float = 1.0
    times: int | None = None
    when: Filter = is_work
    then: Ending = Ending.CLOSE
    keep_last: bool = False
    seconds: float = 0.0
    size: int = 1
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Stroke:
    """A rule that struck a request, with the chance that decides where."""

    rule: Rule
    request: Request
    chance: float

    def cut(self, frame: bytes) -> bytes:
        """Return what is left of a frame that is cut: a byte at least, never all of it."""
        at = self.rule.at if self.rule.at is not None else 1 + int(self.chance * (len(frame) - 1))
        return frame[: max(1, min(at, len(frame) - 1))]
