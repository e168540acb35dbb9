"""Changing a schedule step by step, against whoever is quicker: no server, replies are handed in."""

from __future__ import annotations

from typing import Any

import pytest

from eventq.codec import Codec
from eventq.commands.core import Command
from eventq.commands.schedules import Schedules
from eventq.errors import ConfigurationError, EventqError
from eventq.keys import QueueKeys
from eventq.operations import scheduling
from eventq.records import UnreadableRecord
from eventq.schedule import Standing, StoredSchedule, definition_text
from eventq.slots import Definition

KEYS = QueueKeys("q")
ANY: Codec[Any] = Codec(Any, what="job data", limit=1000, option="Limits.data")
NOW = 2_000_000_000_000
WANTED = Definition(name="job", anchor_ms=0, every_ms=60_000)


def stored(standing: Standing) -> Schedules:
    """Return what a read finds: the same rule under another job name."""
    definition = Definition(name="before", anchor_ms=0, every_ms=60_000)
    return Schedules(NOW, [StoredSchedule("s", standing, definition, definition_text(definition))])


def sent(steps: Any, reply: Any) -> Command[Any]:
    """Hand in a reply and return the next call."""
    command = steps.send(reply)
    assert isinstance(command, Command)
    return command


def test_a_change_is_made_again_to_what_is_there_by_then() -> None:
    """Another one was quicker: what it left is read, and the change is made to that."""
    steps = scheduling.upsert(KEYS, ANY, "s", WANTED)
    assert next(steps).script.name == "get_schedules"  # type: ignore[union-attr]
    first = sent(steps, Schedules(NOW, []))
    assert (first.script.name, first.args[:3]) == ("set_schedule", ["s", "", ""])
    assert sent(steps, "conflict").script.name == "get_schedules"
    there = Standing("w.1", NOW + 5, NOW - 5, fired=3)
    second = sent(steps, stored(there))
    assert second.args[1:4] == ["w.1", str(NOW + 5), there.text], "its slot and its counts are kept"
    with pytest.raises(StopIteration) as done:
        steps.send("set")
    assert (done.value.value.id, done.value.value.count) == ("s", 3)


@pytest.mark.parametrize("what", ["upsert", "pause"])
def test_a_change_does_not_go_on_for_ever(what: str) -> None:
    """Where others are always quicker it gives up, and says so."""
    steps: Any = scheduling.upsert(KEYS, ANY, "s", WANTED) if what == "upsert" else scheduling.pause(KEYS, "s")
    next(steps)
    with pytest.raises(EventqError, match="schedule 's': was changed 1000 times by others meanwhile; nothing was changed"):
        for _ in range(1000):
            sent(steps, stored(Standing("w.1", NOW + 5)))
            steps.send("conflict")


def test_one_too_many_is_refused_with_the_limit() -> None:
    """The script counts; the refusal names queue and limit."""
    steps = scheduling.upsert(KEYS, ANY, "s", WANTED)
    next(steps)
    sent(steps, Schedules(NOW, []))
    with pytest.raises(ConfigurationError, match="schedule 's': queue 'q' has 10000 schedules, which is the limit: remove some"):
        steps.send("full")


def test_an_unreadable_one_is_told_and_not_replaced() -> None:
    """What a newer version or an accident left there is not overwritten; it can be removed."""
    for steps in (scheduling.upsert(KEYS, ANY, "s", WANTED), scheduling.find(KEYS, ANY, "s"), scheduling.resume(KEYS, "s")):
        next(steps)
        with pytest.raises(UnreadableRecord, match="damaged"):
            steps.send(Schedules(NOW, [UnreadableRecord("damaged")]))
