"""Which jobs a command is about, checked before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventq.cli.runtime import UsageError
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CLEANABLE", "check_selection", "check_state"]

CLEANABLE: Final = tuple(state for state in JobState if state is not JobState.WAITING_CHILDREN)


def check_state(state: str, allowed: Sequence[JobState]) -> JobState:
    """Return the state of --state. Raises UsageError."""
    for each in allowed:
        if state == each.value:
            return each
    raise UsageError(f"--state {state!r}: must be one of {', '.join(allowed)}")


def check_selection(ids: Sequence[str] | None, *, every: bool, limit: int | None) -> None:
    """Check that jobs are named, or all of them meant, and not both. Raises UsageError."""
    if bool(ids) == every:
        raise UsageError("give the ids of the jobs, or --all" + (", not both" if every else ""))
    if ids and limit is not None:
        raise UsageError(f"--limit {limit}: goes with --all only")
