"""Numbered calls: the same one twice has one effect, an older one none, and an unknown layout changes nothing.

Every script stands in one of the two tables below; a new one that does not fails a test here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from eventq.commands.add import add_jobs
from eventq.commands.core import Command
from eventq.commands.events import Position, hold_consumer, report_events
from eventq.commands.manage import (
    add_log,
    change_delay,
    change_priority,
    clean_jobs,
    clear_logs,
    obliterate_queue,
    pause_queue,
    promote_jobs,
    remove_jobs,
    resume_queue,
    retry_jobs,
    update_data,
)
from eventq.commands.read import count_jobs, count_priorities, get_jobs, list_finished, list_jobs
from eventq.commands.repair import examine_jobs, repair_jobs, repair_line, repair_upkeep
from eventq.commands.schedules import due_schedules, remove_schedule, set_schedule
from eventq.commands.upkeep import run_timers, sweep_queue, trim_events
from eventq.commands.watch import Vital, observe_queue, report_worker
from eventq.commands.work import ClaimReply, Held, release_jobs, renew_leases, settle_and_claim
from eventq.errors import LayoutMismatch, ScriptError
from eventq.schedule import Standing
from eventq.scripts import script_names
from eventq.slots import plan_firings
from eventq.states import JobState

from . import test_schedules as schedules
from .lab import LEASE_MS, RULES, Lab, held, new, outcome, progress

OLD_TOKEN = "someone.1.0"


@dataclass(frozen=True)
class Case:
    """A call that has an effect: `prepare` makes the queue ready for it, `shows` is a column the effect is seen in.

    same: the part of the answer that a repeated call must get again. loose: a column that a repeated call may touch.
    """

    prepare: Callable[[Lab], Command[Any]]
    shows: str
    same: Callable[[Any], object] = lambda answer: answer
    loose: str = ""


def _add(lab: Lab) -> Command[Any]:
    return add_jobs(lab.keys, [new(), new(delay=5), new(priority=3), new(job_id="own"), new(job_id="own"), new(data="1" * 2000)])


def _settle(lab: Lab) -> Command[Any]:
    lab.add(*[new() for _ in range(5)], new(data='"' + "x" * 2000 + '"'))
    well, badly, again, lost = lab.claim(4).jobs
    lab.call(release_jobs(lab.keys, [held(lost)]))
    outcomes = [outcome(well, result='"done"'), outcome(lost), outcome(badly, "failed"), outcome(again, "retry", 0)]
    return settle_and_claim(
        lab.keys,
        worker="worker-2",
        lease_ms=LEASE_MS,
        wanted=3,
        retention=RULES,
        progress=[progress(well, "50")],
        outcomes=outcomes,
    )


def _claims(reply: ClaimReply) -> object:
    return reply.stale, [(job.id, job.token, job.fence, job.record, job.apart) for job in reply.jobs]


def _release(lab: Lab) -> Command[Any]:
    lab.add(new(), new())
    jobs = lab.claim(2).jobs
    return release_jobs(lab.keys, [held(job) for job in jobs])


def _renew(lab: Lab) -> Command[Any]:
    lab.add(new())
    (job,) = lab.claim().jobs
    return renew_leases(lab.keys, LEASE_MS * 2, [Held("nobody", OLD_TOKEN), held(job)])


def _sweep(lab: Lab) -> Command[Any]:
    lab.add(new(), new(), new(delay=20))
    lab.claim(2)
    lab.expire_leases()
    return sweep_queue(lab.keys, LEASE_MS, LEASE_MS // 3, 2, RULES)


def _timers(lab: Lab) -> Command[Any]:
    lab.finish(new(), rule="age:5000")
    lab.advance(6)
    return run_timers(lab.keys, RULES)


def _trim(lab: Lab) -> Command[Any]:
    for _ in range(3):
        lab.add(new())
    return trim_events(lab.keys, (1, 1_000_000, 1_000_000, 1_000_000))


def _pause(lab: Lab) -> Command[Any]:
    lab.add(new())
    return pause_queue(lab.keys)


def _resume(lab: Lab) -> Command[Any]:
    lab.add(new())
    lab.call(pause_queue(lab.keys))
    return resume_queue(lab.keys)


def _retry(lab: Lab) -> Command[Any]:
    record = new()
    lab.finish(record, word="failed")
    return retry_jobs(lab.keys, [record.id, "nobody"], state=JobState.FAILED, reset_attempts=True)


def _remove(lab: Lab) -> Command[Any]:
    first, second = new(), new(delay=5)
    lab.add(first, second)
    return remove_jobs(lab.keys, [first.id, "nobody", second.id])


def _clean(lab: Lab) -> Command[Any]:
    lab.add(*[new() for _ in range(5)], new(delay=5))
    return clean_jobs(lab.keys, JobState.WAITING, cutoff="-0", cursor="", most=3, reason="cleaned")


def _promote(lab: Lab) -> Command[Any]:
    first, second = new(delay=5), new()
    lab.add(first, second)
    return promote_jobs(lab.keys, [first.id, "nobody", second.id])


def _obliterate(lab: Lab) -> Command[Any]:
    lab.add(new(), new(delay=5))
    return obliterate_queue(lab.keys, lab.meta("epoch") or "", force=False)


def _update(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own"))
    return update_data(lab.keys, "own", "", "2" * 2_000)


def _change_delay(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own", delay=5))
    return change_delay(lab.keys, "own", "+60000")


def _change_priority(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own"), new(priority=2))
    return change_priority(lab.keys, "own", 2, lifo=True)


def _log(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own"))
    return add_log(lab.keys, "own", "", '"line"')


def _clear(lab: Lab) -> Command[Any]:
    lab.call(_log(lab))
    return clear_logs(lab.keys, "own", 0)


def _hold(lab: Lab) -> Command[Any]:
    lab.add(new())
    return hold_consumer(lab.keys, "billing", "me", 10_000, position=Position("e", "1-0", 1), state="state")


def _report(lab: Lab) -> Command[Any]:
    lab.add(new())
    return report_events(lab.keys, "worker_started", ['{"worker":"w"}', '{"worker":"v"}'])


def _report_worker(lab: Lab) -> Command[Any]:
    lab.add(new())
    return report_worker(lab.keys, "w", 15_000, Vital("one", 700, 0, 4, 1, 0, 0, "{}"))


def _set_schedule(lab: Lab) -> Command[Any]:
    found = schedules.set_up(lab)
    return set_schedule(lab.keys, "tick", found.standing, Standing(next_ms=1, fired=3), found.text)


def _fire(lab: Lab) -> Command[Any]:
    found = schedules.set_up(lab, data="x" * 2000, priority=2)
    plan = plan_firings(found.definition, schedules.SLOT, schedules.SLOT + 200_000, 0)[0]
    return schedules.fire_at(lab, found, plan)


def _remove_schedule(lab: Lab) -> Command[Any]:
    schedules.set_up(lab)
    return remove_schedule(lab.keys, "tick")


def _repair_jobs(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own"), new())
    lab.claim()
    lab.redis("ZREM", lab.keys["leases"], "own")
    return repair_jobs(lab.keys, ["own", "nobody"])


def _repair_line(lab: Lab) -> Command[Any]:
    lab.add(new(job_id="own"), new())
    lab.redis("LREM", lab.keys["wait"], 0, "own")
    return repair_line(lab.keys, [("own", "")], recount=True)


def _repair_upkeep(lab: Lab) -> Command[Any]:
    lab.add(new())
    lab.redis("ZREM", lab.keys["timers"], "call producer")
    return repair_upkeep(lab.keys, "calls", ["producer"])


WRITING = {
    "add_jobs": Case(_add, "jobs", same=lambda added: added.existing),
    "settle_and_claim": Case(_settle, "results", same=_claims),
    "release_jobs": Case(_release, "wait"),
    "renew_leases": Case(_renew, "leases"),
    # A repeated sweep only says that it was made: the next one looks again.
    "sweep_queue": Case(_sweep, "runs", same=lambda _: None),
    "run_timers": Case(_timers, "jobs"),
    "trim_events": Case(_trim, "events"),
    "pause_queue": Case(_pause, "meta"),
    "resume_queue": Case(_resume, "meta"),
    "retry_jobs": Case(_retry, "wait"),
    "remove_jobs": Case(_remove, "jobs"),
    "promote_jobs": Case(_promote, "delayed"),
    "clean_jobs": Case(_clean, "jobs"),
    # The records of calls go with the rest: a repetition finds another queue, or none.
    "obliterate_queue": Case(_obliterate, "jobs", same=lambda _: None),
    "update_data": Case(_update, "data"),
    "change_delay": Case(_change_delay, "delayed"),
    "change_priority": Case(_change_priority, "prioritized"),
    "add_log": Case(_log, "logs"),
    "clear_logs": Case(_clear, "logs"),
    "report_events": Case(_report, "events"),
    # A repeated report is the same report again; what it adds to the totals it adds once.
    "report_worker": Case(_report_worker, "meta", loose="workers"),
    "repair_jobs": Case(_repair_jobs, "runs"),
    "repair_line": Case(_repair_line, "wait"),
    "repair_upkeep": Case(_repair_upkeep, "timers"),
    "set_schedule": Case(_set_schedule, "schedules"),
    "fire_schedule": Case(_fire, "jobs"),
    "remove_schedule": Case(_remove_schedule, "slots"),
    # A repeated hold is the same hold again, counted from now.
    "hold_consumer": Case(_hold, "consumers", loose="consumers"),
}
READING: dict[str, Callable[[Lab], Command[Any]]] = {
    "get_jobs": lambda lab: get_jobs(lab.keys, ["a"]),
    "examine_jobs": lambda lab: examine_jobs(lab.keys, ["a"]),
    "list_jobs": lambda lab: list_jobs(lab.keys, JobState.WAITING, 0, 10, newest_first=False),
    "get_schedules": lambda lab: due_schedules(lab.keys, 0, 10),
    "count_jobs": lambda lab: count_jobs(lab.keys),
    "observe_queue": lambda lab: observe_queue(lab.keys),
    "count_priorities": lambda lab: count_priorities(lab.keys, [0, 1]),
    "list_finished": lambda lab: list_finished(lab.keys, JobState.FAILED, "", 0, 10),
}


def test_every_script_is_in_a_table() -> None:
    """No script is left out of these tests, and the tables say rightly which of them write."""
    assert sorted([*WRITING, *READING]) == script_names()


@pytest.mark.parametrize("script", WRITING)
def test_the_same_call_twice_has_one_effect(lab: Lab, script: str) -> None:
    """A call that is sent again after a lost reply changes nothing and is answered as the first time."""
    case = WRITING[script]
    command = case.prepare(lab)
    assert (command.script.name, command.numbered) == (script, True)
    before = lab.column(case.shows)
    first = lab.call(command, "repeating", 7)
    after = lab.dump()
    assert after.get(case.shows) != before, "the call has an effect to begin with"

    again = lab.call(command, "repeating", 7)

    assert case.same(again) == case.same(first)
    assert _without(lab.dump(), case.loose) == _without(after, case.loose)


@pytest.mark.parametrize("script", WRITING)
def test_an_older_call_is_stale(lab: Lab, script: str) -> None:
    """A call that arrives after a later one of its writer is refused without effect; the next number runs."""
    case = WRITING[script]
    command = case.prepare(lab)
    lab.call(renew_leases(lab.keys, LEASE_MS, [Held("nobody", OLD_TOKEN)]), "overtaking", 10)
    before = lab.dump()

    for number in (9, 1):
        with pytest.raises(ScriptError, match=rf"script {script}: a later call of this writer \(10\) has run already"):
            lab.call(command, "overtaking", number)
    assert lab.dump() == before

    lab.call(command, "overtaking", 11)
    assert lab.column(case.shows) != before.get(case.shows), "the refused call would have had an effect"


@pytest.mark.parametrize("script", WRITING)
def test_an_unknown_layout_changes_nothing(lab: Lab, script: str) -> None:
    """A queue written with another layout is refused by name of the layout, and left as it is."""
    case = WRITING[script]
    command = case.prepare(lab)
    lab.redis("HSET", lab.keys["meta"], "layout", "2")
    before = lab.dump()

    with pytest.raises(LayoutMismatch, match="says layout 2.*nothing was changed"):
        lab.call(command, "fresh")
    assert lab.dump() == before

    lab.redis("HSET", lab.keys["meta"], "layout", "1")
    lab.call(command, "fresh")
    assert lab.column(case.shows) != before.get(case.shows), "the refused call would have had an effect"


@pytest.mark.parametrize("script", READING)
def test_reading_refuses_an_unknown_layout(lab: Lab, script: str) -> None:
    """Reading a queue of another layout is refused too: what it would say could be wrong."""
    command = READING[script](lab)
    assert (command.script.name, command.numbered) == (script, False)
    lab.call(command)
    assert lab.dump() == {}, "reading writes nothing, not even a layout"
    lab.redis("HSET", lab.keys["meta"], "layout", "2")
    with pytest.raises(LayoutMismatch, match="says layout 2"):
        lab.call(command)


def test_the_first_call_of_a_queue_writes_layout_and_epoch(lab: Lab) -> None:
    """The epoch is the random id of the queue's first writer and when it came, and stays, whoever comes later."""
    before = lab.now()
    lab.call(add_jobs(lab.keys, [new()]), "first")
    writer, _, ms = (lab.meta("epoch") or "").partition("-")
    assert (lab.meta("layout"), writer) == ("1", "first") and before <= int(ms) <= lab.now()
    lab.call(pause_queue(lab.keys), "second")
    assert (lab.meta("layout"), lab.meta("epoch")) == ("1", f"first-{ms}")


def test_numbers_are_compared_as_numbers(lab: Lab) -> None:
    """10 comes after 9: numbers are not compared as text."""
    lab.call(add_jobs(lab.keys, [new()]), "counting", 9)
    lab.call(add_jobs(lab.keys, [new()]), "counting", 10)
    with pytest.raises(ScriptError, match="later call"):
        lab.call(add_jobs(lab.keys, [new()]), "counting", 9)
    assert lab.counts() == {"waiting": 2}


def test_a_repeated_add_writes_so_that_it_can_be_confirmed(lab: Lab) -> None:
    """WAIT waits for what its own connection wrote: the call is repeated on another one, and changes nothing there."""
    command = add_jobs(lab.keys, [new(), new(job_id="own")])
    lab.call(command, "repeating", 7)
    before = lab.dump(), changes(lab)
    lab.call(command, "repeating", 7)
    assert (lab.dump(), changes(lab)) == (before[0], before[1] + 1)


def changes(lab: Lab) -> int:
    """Return how many changes the server counts that it would save: what it tells replicas and its append-only file."""
    info = dict(line.split(":", 1) for line in lab.redis("INFO", "persistence").splitlines() if ":" in line)
    return int(info["rdb_changes_since_last_save"])


def test_a_replayed_claim_leaves_out_what_was_taken_away(lab: Lab) -> None:
    """The answer to a repeated claim names the same runs, except those whose jobs are somebody else's by now."""
    records = [new(), new(data='"' + "x" * 3000 + '"'), new(), new()]
    lab.add(*records)
    first = lab.claim(4, writer="slow", number=1).jobs
    lab.advance(LEASE_MS / 1000 - 10)
    lab.sweep()
    lab.call(renew_leases(lab.keys, LEASE_MS, [held(first[0]), held(first[1]), held(first[3])]), "heartbeat")
    lab.advance(11)
    assert lab.sweep().reclaimed == 1
    (taken,) = lab.claim(1, worker="worker-2", writer="quick").jobs
    assert taken.id == first[2].id

    before = lab.dump()
    again = lab.claim(4, writer="slow", number=1).jobs

    assert [(job.id, job.token, job.fence, job.apart) for job in again] == [
        (job.id, job.token, job.fence, job.apart) for job in (first[0], first[1], first[3])
    ]
    assert lab.dump() == before
    assert lab.settle(outcome(first[2])) == [0], "the old run may not settle"
    assert lab.settle(outcome(taken), *[outcome(job) for job in again]) == []


def test_a_replayed_claim_leaves_out_what_was_removed(lab: Lab) -> None:
    """A claimed job that ended and is no longer stored is not handed out by the answer to a repeated claim."""
    lab.add(new(), new())
    gone, kept = lab.claim(2, writer="slow", number=1).jobs
    assert lab.settle(outcome(gone, "completed", "0")) == []
    assert [job.id for job in lab.claim(2, writer="slow", number=1).jobs] == [kept.id]


def test_a_writer_is_forgotten_after_an_idle_day(lab: Lab) -> None:
    """Call records end a day after a writer's last call, not after its first one."""
    lab.call(add_jobs(lab.keys, [new()]), "idle")
    lab.call(add_jobs(lab.keys, [new()]), "busy")
    lab.advance(80_000)
    lab.call(add_jobs(lab.keys, [new()]), "busy")
    lab.advance(10_000)
    lab.call(run_timers(lab.keys, RULES), "scheduler")
    assert {"busy", "scheduler"} == set(lab.column("calls"))
    assert {"call busy", "call scheduler"} == set(lab.members("timers"))
    lab.advance(80_000)
    lab.call(run_timers(lab.keys, RULES), "scheduler")
    assert {"scheduler"} == set(lab.column("calls"))


def _without(stored: dict[str, Any], column: str) -> dict[str, Any]:
    return {name: content for name, content in stored.items() if name != column}
