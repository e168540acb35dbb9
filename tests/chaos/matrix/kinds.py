"""What a fault of the matrix is: its row, what the scene needs for it, what it may cost, and how it strikes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .scene import Scene

Strike = Callable[["Scene"], Awaitable[None]]


class Link(StrEnum):
    """Who reaches the server through the fault proxy."""

    DIRECT = "nobody"
    ONE = "one worker"
    ALL = "everybody"


#: What of a queue a server keeps.
PERSISTENCE: Final = {
    "none": (),
    "snapshots": ("--save", "3600 1"),
    "everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "always": ("--appendonly", "yes", "--appendfsync", "always"),
}
KEEPS_ALL: Final = ("everysec", "always")


class Ground(StrEnum):
    """What a scene takes place on."""

    SERVER = "one server"
    SENTINEL = "a primary and a replica watched by sentinels"
    CLUSTER = "a cluster of three"


@dataclass(frozen=True)
class Kind:
    """One fault.

    number, title: its row of the matrix. strike: do it once, and undo what has to be undone; returns when it is over.
    ground: where it can happen; anywhere: on others too. small_disk: the server's directory is on a disk of a few MB of its own.
    persistence: what the server must be started with, any if empty. server: further options of it. link: as it says.
    tolerates: what of the report it may well bring about. lossy: acknowledged work may be undone; then it must be told.
    confirmed: adds wait for the replica, and none of them may be lost. stalls: runs may be taken back from workers; of all
    others none may be. halts: the server answers nobody for a while; a second time within a lease workers may lose runs. trims: events may be lost; then they must be counted. times: how often it strikes in a scene of its own.
    """

    number: int
    title: str
    strike: Strike
    ground: Ground = Ground.SERVER
    anywhere: bool = False
    small_disk: bool = False
    persistence: tuple[str, ...] = ()
    server: tuple[str, ...] = ()
    link: Link = Link.DIRECT
    tolerates: frozenset[str] = frozenset()
    lossy: bool = False
    confirmed: bool = False
    stalls: bool = False
    halts: bool = False
    trims: bool = False
    times: int = 2

    @property
    def key(self) -> str:
        """Short and unique."""
        return f"{self.number:02}-{self.strike.__name__.replace('_', '-')}"


class Faults:
    """A list of faults: as a decorator, with what Kind knows of it, it lists a function. `common`: what all of them have."""

    def __init__(self, **common: Any) -> None:
        self.kinds: list[Kind] = []
        self._common = common

    def __call__(self, number: int, title: str, **facts: Any) -> Callable[[Strike], Strike]:
        """List a function as this row of the matrix."""

        def listed(strike: Strike) -> Strike:
            self.kinds.append(Kind(number, title, strike, **{**self._common, **facts}))
            return strike

        return listed


def ground_of(kinds: Sequence[Kind]) -> Ground:
    """Return where faults can happen together: where the pickiest of them can."""
    return next((kind.ground for kind in kinds if kind.ground is not Ground.SERVER), Ground.SERVER)


def can_be_together(kinds: Sequence[Kind]) -> bool:
    """Whether one scene can be all that these faults need."""
    ground = ground_of(kinds)
    fit = all(kind.ground is ground or kind.anywhere for kind in kinds)
    return fit and bool(set.intersection(*(set(kind.persistence or PERSISTENCE) for kind in kinds)))
