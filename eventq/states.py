"""The states of a job and the legal moves between them, as data.

Lua executes the moves; tests check what happened against this table and ARCHITECTURE.md's diagram is drawn from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final

from eventq.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class JobState(StrEnum):
    """Where a job stands. `paused` is derived: the waiting jobs of a paused queue."""

    WAITING = "waiting"
    PRIORITIZED = "prioritized"
    DELAYED = "delayed"
    ACTIVE = "active"
    WAITING_CHILDREN = "waiting_children"
    COMPLETED = "completed"
    FAILED = "failed"
    PAUSED = "paused"


IN_LINE: Final = (JobState.WAITING, JobState.PRIORITIZED)
FINISHED: Final = (JobState.COMPLETED, JobState.FAILED)

#: (state before, event kind) -> states after. None is "not stored".
TRANSITIONS: Final[dict[tuple[JobState | None, str], tuple[JobState | None, ...]]] = {
    (None, "added"): (JobState.WAITING, JobState.PRIORITIZED, JobState.DELAYED),
    (JobState.DELAYED, "waiting"): IN_LINE,
    (JobState.WAITING, "active"): (JobState.ACTIVE,),
    (JobState.PRIORITIZED, "active"): (JobState.ACTIVE,),
    (JobState.ACTIVE, "progress"): (JobState.ACTIVE,),
    (JobState.ACTIVE, "completed"): (JobState.COMPLETED,),
    (JobState.ACTIVE, "failed"): (JobState.FAILED,),
    (JobState.ACTIVE, "retrying"): (JobState.DELAYED, *IN_LINE),
    (JobState.ACTIVE, "released"): IN_LINE,
    (JobState.ACTIVE, "stalled"): IN_LINE,
    (JobState.ACTIVE, "delayed"): (JobState.DELAYED,),
    (JobState.DELAYED, "delayed"): (JobState.DELAYED,),
    (JobState.WAITING, "updated"): IN_LINE,
    (JobState.PRIORITIZED, "updated"): IN_LINE,
    (JobState.DELAYED, "updated"): (JobState.DELAYED,),
    (JobState.ACTIVE, "updated"): (JobState.ACTIVE,),
    (JobState.COMPLETED, "updated"): (JobState.COMPLETED,),
    (JobState.FAILED, "updated"): (JobState.FAILED,),
    (JobState.COMPLETED, "waiting"): IN_LINE,
    (JobState.FAILED, "waiting"): IN_LINE,
    (JobState.WAITING, "removed"): (None,),
    (JobState.PRIORITIZED, "removed"): (None,),
    (JobState.DELAYED, "removed"): (None,),
    (JobState.COMPLETED, "removed"): (None,),
    (JobState.FAILED, "removed"): (None,),
}


def parse_state(state: JobState | str, among: Iterable[JobState] = JobState) -> JobState:
    """Return a state by its word. Raises ConfigurationError naming those that may be asked for."""
    allowed = tuple(among)
    if state in allowed:
        return JobState(state)
    raise ConfigurationError(f"state {state!r}: must be one of {', '.join(allowed)}")


def still_to_run(counts: Mapping[JobState, int]) -> int:
    """Return how many of these jobs are still to run."""
    return sum(number for state, number in counts.items() if state not in (JobState.ACTIVE, *FINISHED))


def transition_diagram() -> str:
    """Draw the table as a Mermaid state diagram, one line per move."""
    lines = ["stateDiagram-v2"]
    for (before, kind), afters in TRANSITIONS.items():
        for after in afters:
            lines.append(f"    {before.value if before else '[*]'} --> {after.value if after else '[*]'}: {kind}")
    return "\n".join(lines)
