"""What a command is, and how the words that scripts answer become values or exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from eventq.errors import LayoutMismatch, ScriptError

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
        """Return the EVALSHA as it is sent."""
        head: list[str | int] = ["EVALSHA", self.script.sha, len(self.keys), *self.keys]
        if self.numbered:
            head.append(writer)
            head.append(number)
        head.extend(self.args)
        return head

    def read(self, reply: list[Any]) -> R:
        """Return the parsed reply. Raises LayoutMismatch or ScriptError."""
        if reply:
            if reply[0] == "OK":
                return self.parse(reply)
            if reply[0] == "LAYOUT":
                raise LayoutMismatch(
                    f"{self.keys[0]} says layout {reply[1]}, this version of eventq knows layout 1: upgrade eventq; "
                    "nothing was changed"
                )
            if reply[0] == "STALE":
                raise ScriptError(f"script {self.script.name}: a later call of this writer ({reply[1]}) has run already")
        raise ScriptError(f"script {self.script.name} answered {repr(reply)[:200]}")

    def __repr__(self) -> str:
        return f"<Command {self.script.name} {len(self.args)} arguments>"


@dataclass(frozen=True, slots=True)
class Verb(Generic[R]):
    """One plain Redis command."""

    words: tuple[str | int, ...]
    parse: Callable[[Any], R]


#: Several calls that make one operation: yields each command and is sent its parsed reply. Any runner performs it.
Steps: TypeAlias = "Generator[Command[Any] | Verb[Any], Any, R]"


def indexes(text: str) -> list[int]:
    """Return a reply's list of indexes."""
    return [int(index) for index in text.split()]


def batch_reply(reply: list[Any]) -> str:
    """Return the one text of a reply that says a letter or an index per job."""
    return str(reply[1])
