"""What a command is, and how the words that scripts answer become values or exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from eventq.errors import ConfigurationError, InvalidJob, LayoutMismatch, ScriptError, ServerRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from eventq.scripts import Script

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Command(Generic[R]):
    """One call of a script: keys, arguments, and how its reply reads. `args` leave out writer and number: a runner adds them.

    numbered: the script changes something, so the call carries its writer's number and may be repeated safely.
    """

    script: Script
    keys: tuple[str, ...]
    args: Sequence[str | int]
    parse: Callable[[list[Any]], R]
    numbered: bool = True

    def words(self, writer: str, number: int) -> list[str | int]:
        """Return the call as it is sent. What reads is called as reading: so a user who may write nothing can do it."""
        verb = "EVALSHA" if self.numbered else "EVALSHA_RO"
        head: list[str | int] = [verb, self.script.sha, len(self.keys), *self.keys]
        if self.numbered:
            head.append(writer)
            head.append(number)
        head.extend(self.args)
        return head

    def read(self, reply: list[Any]) -> R:
        """Return the parsed reply. Raises LayoutMismatch, ServerRefused, ScriptError, or what the parser says of a record."""
        if isinstance(reply, list) and reply:
            if reply[0] == "OK":
                return _parsed(f"script {self.script.name}", self.parse, reply)
            said = " ".join(map(str, reply[1:]))
            if reply[0] == "LAYOUT":
                raise LayoutMismatch(
                    f"{self.keys[0]} says layout {said}, this version of eventq knows layout 1: upgrade eventq; "
                    "nothing was changed"
                )
            if reply[0] == "DAMAGED":
                raise ServerRefused(
                    f"{said}: a key of another type than eventq puts there, so somebody else wrote it: rename or delete it; "
                    "nothing was changed",
                    "WRONGTYPE",
                )
            if reply[0] == "STALE":
                raise ScriptError(f"script {self.script.name}: a later call of this writer ({said}) has run already")
        raise ScriptError(f"script {self.script.name} answered {repr(reply)[:200]}")

    def __repr__(self) -> str:
        return f"<Command {self.script.name} {len(self.args)} arguments>"


@dataclass(frozen=True, slots=True)
class Verb(Generic[R]):
    """One plain Redis command."""

    words: tuple[str | int, ...]
    parse: Callable[[Any], R]

    def read(self, reply: Any) -> R:
        """Return the parsed reply. Raises ScriptError, or what the parser says of a damaged record."""
        return _parsed(str(self.words[0]), self.parse, reply)


#: What a parser stumbles over in a reply that is none of ours: one made of damaged data, or of a server that is no Redis.
_UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def _parsed(what: str, parse: Callable[[Any], R], reply: Any) -> R:
    try:
        return parse(reply)
    except (ConfigurationError, InvalidJob):
        raise
    except _UNREADABLE as error:
        raise ScriptError(f"{what} answered {repr(reply)[:200]}, which is not understood: {error!r}"[:1000]) from error


#: Several calls that make one operation: yields each command and is sent its parsed reply. Any runner performs it.
Steps: TypeAlias = "Generator[Command[Any] | Verb[Any], Any, R]"


def indexes(text: str) -> list[int]:
    """Return a reply's list of indexes."""
    return [int(index) for index in text.split()]


def batch_reply(reply: list[Any]) -> str:
    """Return the one text of a reply that says a letter or an index per job."""
    return str(reply[1])
