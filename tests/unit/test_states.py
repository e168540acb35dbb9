"""The table of transitions: complete, closed, and what ARCHITECTURE.md draws."""

from __future__ import annotations

import re
from pathlib import Path

from eventq.events import STREAM_EVENTS, JobEvent, RemovedEvent
from eventq.states import FINISHED, IN_LINE, TRANSITIONS, JobState, transition_diagram

ARCHITECTURE = Path(__file__).resolve().parents[2] / "ARCHITECTURE.md"
#: Derived from waiting and a paused queue; and of a kind of job that does not exist yet.
NEVER_STORED = {JobState.PAUSED, JobState.WAITING_CHILDREN}


def test_every_move_is_an_event() -> None:
    """Each kind in the table is on the stream and names its jobs; each such kind but `duplicated` is in the table."""
    told = {kind for kind, cls in STREAM_EVENTS.items() if issubclass(cls, JobEvent | RemovedEvent)}
    assert {kind for _, kind in TRANSITIONS} == told - {"duplicated"}


def test_every_state_is_entered_and_left() -> None:
    """From "not stored" a job can come into every state, and from every state it can be gone again."""
    states = set(JobState) - NEVER_STORED
    assert {after for afters in TRANSITIONS.values() for after in afters} == {*states, None}
    assert {before for before, _ in TRANSITIONS} == {*states, None}
    moves = [(before, after) for (before, _), afters in TRANSITIONS.items() for after in afters]
    assert reached(moves, None) == {*states, None}
    assert reached([(after, before) for before, after in moves], None) == {*states, None}


def reached(moves: list[tuple[JobState | None, JobState | None]], start: JobState | None) -> set[JobState | None]:
    """Return every state that the moves lead to."""
    found: set[JobState | None] = {start}
    while more := {after for before, after in moves if before in found} - found:
        found |= more
    return found


def test_no_move_says_the_same_twice() -> None:
    """The states after a move are different ones, and at least one."""
    assert all(afters and len(set(afters)) == len(afters) for afters in TRANSITIONS.values())


def test_a_job_runs_only_from_the_line_and_ends_only_from_running() -> None:
    """`active` is entered from waiting or prioritized, completed and failed from active only, and an active job is never removed."""
    moves = {key: afters for key, afters in TRANSITIONS.items() if key[1] != "updated"}
    into = {after: {before for (before, _), afters in moves.items() if after in afters} for after in JobState}
    for (before, kind), afters in TRANSITIONS.items():
        assert kind != "updated" or afters == (IN_LINE if before in IN_LINE else (before,)), "an update moves nothing but in line"
    assert into[JobState.ACTIVE] == {*IN_LINE, JobState.ACTIVE}
    assert all(into[state] == {JobState.ACTIVE} for state in FINISHED)
    assert (JobState.ACTIVE, "removed") not in TRANSITIONS


def test_a_state_is_its_word() -> None:
    """A JobState compares and prints as the word that is stored and shown."""
    assert {state: str(state) for state in JobState} == {state: state.value for state in JobState}
    assert {"waiting": 1}[JobState.WAITING] == 1
    assert f"{JobState.WAITING_CHILDREN}" == "waiting_children"
    assert JobState("failed") is JobState.FAILED


def test_the_diagram_has_a_line_per_move() -> None:
    """The drawing says every move of the table and nothing else."""
    head, *lines = transition_diagram().splitlines()
    assert head == "stateDiagram-v2"
    assert len(lines) == len(set(lines)) == sum(len(afters) for afters in TRANSITIONS.values())
    assert "    [*] --> delayed: added" in lines
    assert "    failed --> [*]: removed" in lines


def test_the_architecture_shows_this_diagram() -> None:
    """ARCHITECTURE.md draws the table as it is, between its markers."""
    text = ARCHITECTURE.read_text(encoding="utf-8")
    found = re.search(r"<!-- transitions -->\n(?:```mermaid\n)?(.*?)\n(?:```\n)?<!-- /transitions -->", text, re.DOTALL)
    assert found, "no diagram between the markers"
    assert found[1] == transition_diagram()
