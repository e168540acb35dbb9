"""SyncQueue and SyncJob are Queue and Job without `await`: name by name, parameter by parameter."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from eventq import Job, Queue, SyncJob, SyncQueue

#: Public names of the async class that its twin has not, and why.
MISSING = {
    "Queue.on": "listeners are called on an event loop",
    "Queue.off": "what `on` connected",
    "Queue.events": "a reader is an async iterator",
    "Queue.outcomes": "how jobs of a JobQueue wait for outcomes on its loop",
    "Job.update_progress": "of a processor; processors run in workers, which have a loop",
    "Job.fence": "of a processor",
    "Job.cancelled": "of a processor",
}
#: Public names that only the twin has, and why.
EXTRA: dict[str, str] = {}
#: Calls that return something to await instead of being `async`, so that a processor's thread may make them too.
CALLED = {"Job.update_data": "Called", "Job.log": "Called"}
TWINS = [(Queue, SyncQueue), (Job, SyncJob)]


def members(cls: type) -> dict[str, Any]:
    """Return the public members of a class by name, inherited ones too, those of `object` left out."""
    return {name: inspect.getattr_static(cls, name) for name in dir(cls) if not name.startswith("_")}


def awaited(annotation: Any) -> str:
    """Return an annotation as the twin has it."""
    return re.sub(r"\b(Queue|Job)\b(?!\.)", r"Sync\1", str(annotation))


NAMES = [(one, twin, name) for one, twin in TWINS for name in members(one) if f"{one.__name__}.{name}" not in MISSING]


@pytest.mark.parametrize(("one", "twin"), TWINS)
def test_both_have_the_same_names(one: type, twin: type) -> None:
    """What one has the other has, but for the exceptions above; and no exception is out of date."""
    of_one, of_twin = (set(members(cls)) for cls in (one, twin))
    assert {name.partition(".")[2] for name in MISSING if name.startswith(f"{one.__name__}.")} == of_one - of_twin
    assert {name.partition(".")[2] for name in EXTRA if name.startswith(f"{twin.__name__}.")} == of_twin - of_one


@pytest.mark.parametrize(("one", "twin", "name"), NAMES, ids=[f"{one.__name__}.{name}" for one, _, name in NAMES])
def test_same_signature(one: type, twin: type, name: str) -> None:
    """The same parameters, kinds, defaults and annotations; the return annotation is what awaiting gives."""
    ours, theirs = members(one)[name], members(twin)[name]
    assert type(ours) is type(theirs)
    if isinstance(ours, property):
        ours, theirs = ours.fget, theirs.fget
    if not inspect.isfunction(ours):
        return
    assert not inspect.iscoroutinefunction(theirs)
    expected, actual = inspect.signature(ours), inspect.signature(theirs)
    for parameters in zip(expected.parameters.values(), actual.parameters.values(), strict=True):
        said, says = ((each.name, each.kind, each.default, awaited(each.annotation)) for each in parameters)
        assert said == says
    returned = awaited(expected.return_annotation)
    if f"{one.__name__}.{name}" in CALLED:
        assert (CALLED[f"{one.__name__}.{name}"], "None") == (returned, actual.return_annotation)
    else:
        assert returned == str(actual.return_annotation)


def test_both_are_made_alike() -> None:
    """The constructors of Queue and SyncQueue take the same."""
    expected, actual = (inspect.signature(cls.__init__).parameters for cls in (Queue, SyncQueue))
    assert list(expected.values()) == list(actual.values())
