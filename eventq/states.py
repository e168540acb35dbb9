"""The states of a job and the legal moves between them, as data.

Lua executes the moves; tests check what happened against this table and ARCHITECTURE.md's diagram is drawn from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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
    (JobState.COMPLETED, "waiting"): IN_LINE,
    (JobState.FAILED, "waiting"): IN_LINE,
    (JobState.WAITING, "removed"): (None,),
    (JobState.PRIORITIZED, "removed"): (None,),
    (JobState.DELAYED, "removed"): (None,),
    (JobState.COMPLETED, "removed"): (None,),
    (JobState.FAILED, "removed"): (None,),
}


def transition_diagram() -> str:
    """Draw the table as a Mermaid state diagram, one line per move."""
    lines = ["stateDiagram-v2"]
    for (before, kind), afters in TRANSITIONS.items():
        for after in afters:
            lines.append(f"    {before.value if before else '[*]'} --> {after.value if after else '[*]'}: {kind}")
    return "\n".join(lines)
