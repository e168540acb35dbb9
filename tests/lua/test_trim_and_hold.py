"""Trimming the event stream, and the names of durable readers that hold it back."""

from __future__ import annotations

import pytest

from eventq.commands.events import Position, hold_consumer
from eventq.commands.manage import obliterate_queue, pause_queue, resume_queue
from eventq.commands.upkeep import ENTRIES, trim_events

from .lab import DAY_MS, Lab, new

ENDLESS = 2**40


def trim(lab: Lab, *, events: int = ENDLESS, size: int = ENDLESS, age_ms: int = ENDLESS, hard: int = ENDLESS) -> bool:
    """Trim once by these rules."""
    return lab.call(trim_events(lab.keys, (events, size, age_ms, hard)))


def seqs(lab: Lab) -> list[int]:
    """Return the numbers of the events that are still there."""
    return [event.seq for event in lab.events()]


def fill(lab: Lab, count: int, *, per_entry: int = 1) -> None:
    """Make so many entries."""
    for _ in range(count):
        lab.add(*[new() for _ in range(per_entry)])


def test_by_number_of_events(lab: Lab) -> None:
    """Entries go, the oldest first, for as long as at least so many events remain."""
    fill(lab, 10, per_entry=3)
    assert not trim(lab, events=100)
    assert len(seqs(lab)) == 30
    assert not trim(lab, events=10)
    assert seqs(lab) == list(range(19, 31))
    lab.add(new())
    assert seqs(lab)[-1] == 31, "numbers go on"


def test_by_bytes(lab: Lab) -> None:
    """The running total says what would remain, without a look at the rest of the stream."""
    fill(lab, 10)
    sizes = [len(entry.fields["events"]) for entry in lab.entries()]
    trim(lab, size=sum(sizes[6:]))
    assert seqs(lab) == [7, 8, 9, 10]
    trim(lab, size=sum(sizes[6:]) + 1)
    assert seqs(lab) == [7, 8, 9, 10]
    assert lab.meta("event_bytes") == str(sum(sizes)), "the total is of all that was ever written"


def test_by_age(lab: Lab) -> None:
    """What is older than the rule goes, even when nothing is written any more."""
    fill(lab, 2)
    lab.advance(50)
    fill(lab, 2)
    trim(lab, age_ms=60_000)
    assert seqs(lab) == [1, 2, 3, 4]
    lab.advance(20)
    trim(lab, age_ms=60_000)
    assert seqs(lab) == [3, 4]
    lab.advance(100)
    trim(lab, age_ms=60_000)
    assert seqs(lab) == []


def test_a_slice_at_a_time(lab: Lab) -> None:
    """One call looks at so many entries and says whether it might have gone on."""
    for _ in range(ENTRIES):
        lab.call(pause_queue(lab.keys))
        lab.call(resume_queue(lab.keys))
    assert trim(lab, events=10)
    assert seqs(lab)[0] == ENTRIES + 1
    assert not trim(lab, events=10)
    assert seqs(lab) == list(range(2 * ENTRIES - 9, 2 * ENTRIES + 1))


@pytest.mark.parametrize("rule", ["events", "size", "age_ms"])
def test_a_live_reader_holds_trimming_back(lab: Lab, rule: str) -> None:
    """Nothing that the slowest live reader has not handled goes, until the hard cap or a day without a word from it."""
    fill(lab, 10)
    hold(lab, "slow", seq=4)
    hold(lab, "fast", seq=9)
    lab.advance(10)
    trim(lab, **{rule: 0})
    assert seqs(lab) == [5, 6, 7, 8, 9, 10]
    lab.advance(DAY_MS / 1000 - 100)
    hold(lab, "fast", seq=10)
    trim(lab, **{rule: 0})
    assert seqs(lab) == [5, 6, 7, 8, 9, 10]
    lab.advance(200)
    trim(lab, **{rule: 0})
    assert seqs(lab) == [], "idle for longer than a day"


def test_the_hard_cap_passes_a_live_reader(lab: Lab) -> None:
    """The stream does not grow without end for a reader that does not read."""
    fill(lab, 10)
    hold(lab, "slow", seq=4)
    sizes = [len(entry.fields["events"]) for entry in lab.entries()]
    trim(lab, events=1, hard=sum(sizes[7:]))
    assert seqs(lab) == [8, 9, 10]


def test_an_entry_of_somebody_else_is_no_obstacle(lab: Lab) -> None:
    """What is none of ours in the stream goes with what is around it and does not break the call."""
    fill(lab, 2)
    lab.redis("XADD", lab.keys["events"], "*", "kind", "added", "what", "ever")
    fill(lab, 3)
    trim(lab, events=2)
    assert seqs(lab) == [4, 5]


def test_half_an_entry_handled_keeps_it(lab: Lab) -> None:
    """A reader that stopped in the middle of an entry finds it when it comes back."""
    fill(lab, 3, per_entry=10)
    hold(lab, "slow", seq=15)
    trim(lab, events=0)
    assert seqs(lab) == list(range(11, 31))


def test_a_reader_that_saved_nothing_holds_nothing(lab: Lab) -> None:
    """A name that is held but has no position yet does not stop trimming."""
    fill(lab, 3)
    lab.call(hold_consumer(lab.keys, "new", "me", 10_000))
    trim(lab, events=0)
    assert seqs(lab) == []


def hold(lab: Lab, name: str, *, seq: int, holder: str = "me") -> None:
    """Save a reader's position."""
    position = Position(lab.meta("epoch") or "", f"{seq}-0", seq)
    assert lab.call(hold_consumer(lab.keys, name, holder, 10_000, position=position)).held


def test_one_process_holds_a_name(lab: Lab) -> None:
    """Another one stands by, whatever it would save, until the hold ends or is given up."""
    lab.add(new())
    here = Position("epoch", "5-0", 1)
    taken = lab.call(hold_consumer(lab.keys, "billing", "first", 10_000, position=here, state='{"a": 1}'), "one")
    assert (taken.held, taken.position, taken.state) == (True, here, ""), "what it said itself is not said back to it"
    assert (taken.epoch, taken.seq) == (lab.meta("epoch"), 1)

    before = lab.column("consumers")
    stood_by = lab.call(hold_consumer(lab.keys, "billing", "second", 10_000, position=Position("epoch", "9-9", 9)), "two")
    assert (stood_by.held, stood_by.position, stood_by.state) == (False, here, '{"a": 1}')
    assert not lab.call(hold_consumer(lab.keys, "billing", "second", 10_000), "two").held
    assert lab.column("consumers") == before

    there = Position("epoch", "6-0", 2)
    lab.call(hold_consumer(lab.keys, "billing", "first", 0, position=there), "one")
    taken = lab.call(hold_consumer(lab.keys, "billing", "second", 10_000), "two")
    assert (taken.held, taken.position, taken.state) == (True, there, "")


def test_a_reader_that_lost_its_name_saves_nothing(lab: Lab) -> None:
    """A process that was away for longer than its hold cannot set its successor back, not even once that one is gone."""
    hold(lab, "billing", seq=3, holder="first")
    lab.advance(11)
    taken = lab.call(hold_consumer(lab.keys, "billing", "second", 10_000), "two")
    assert (taken.held, taken.position.seq) == (True, 3)
    lab.call(hold_consumer(lab.keys, "billing", "second", 10_000, position=Position("e", "8-0", 8)), "two")

    late = hold_consumer(lab.keys, "billing", "first", 10_000, position=Position("e", "4-0", 4))
    assert not lab.call(late, "one").held
    lab.advance(11)
    back = lab.call(late, "one")
    assert (back.held, back.position.seq) == (False, 8)
    again = lab.call(hold_consumer(lab.keys, "billing", "first", 10_000), "one")
    assert (again.held, again.position.seq) == (True, 8), "it may take the name, and goes on where its successor stopped"


def test_a_hold_that_ended_unnoticed_still_saves(lab: Lab) -> None:
    """As long as nobody took the name, its last holder is its holder."""
    hold(lab, "billing", seq=3)
    lab.advance(60)
    hold(lab, "billing", seq=5)
    assert lab.call(hold_consumer(lab.keys, "billing", "me", 10_000)).position.seq == 5


def test_names_are_apart(lab: Lab) -> None:
    """Every name has its own holder and position; a new one starts at the beginning."""
    hold(lab, "a", seq=3)
    fresh = lab.call(hold_consumer(lab.keys, "b", "somebody", 10_000))
    assert (fresh.held, fresh.position, fresh.state) == (True, Position(), "")


def obliterate_and_add(lab: Lab, before: int, after: int) -> None:
    """End an epoch of so many events and begin another."""
    lab.add(*[new() for _ in range(before)])
    lab.call(obliterate_queue(lab.keys, lab.meta("epoch") or "", force=False))
    for _ in range(after):
        lab.add(new())


def test_the_end_of_an_epoch_holds_back_no_trimming(lab: Lab) -> None:
    """Its number is higher than those that follow; it goes with them, when they are too many."""
    obliterate_and_add(lab, before=300, after=40)
    assert lab.call(trim_events(lab.keys, (5, DAY_MS, DAY_MS, DAY_MS)))
    lab.call(trim_events(lab.keys, (5, DAY_MS, DAY_MS, DAY_MS)))
    assert len(lab.entries()) == 5
    assert [event.kind for event in lab.events()] == ["added"] * 5


def test_the_end_of_an_epoch_stays_for_its_time(lab: Lab) -> None:
    """Readers that are away are told of it within a day."""
    obliterate_and_add(lab, before=300, after=3)
    lab.call(trim_events(lab.keys))
    assert next(event.kind for event in lab.events()) == "obliterated"
    lab.advance(DAY_MS / 1000 + 1)
    lab.call(trim_events(lab.keys))
    assert lab.entries() == []


def test_a_reader_brings_no_queue_to_life(lab: Lab) -> None:
    """Of a queue that is not there, or no more, its position is all that is written, and it goes within a day; then it stays."""
    day_ms = range(86_000_000, 86_400_001)
    assert lab.call(hold_consumer(lab.keys, "metrics", "me", 10_000)).held
    assert set(lab.dump()) == {"consumers"} and lab.redis("PTTL", lab.keys["consumers"]) in day_ms
    lab.add(new())
    hold(lab, "metrics", seq=1)
    assert lab.redis("PTTL", lab.keys["consumers"]) == -1
    lab.call(obliterate_queue(lab.keys, lab.meta("epoch") or "", force=False))
    hold(lab, "metrics", seq=2)
    assert set(lab.dump()) == {"consumers", "events"} and lab.redis("PTTL", lab.keys["consumers"]) in day_ms
