"""Every kind of damage planted by a plain client, found, mended, and nothing else touched; and a sound queue left as it is."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest

from eventq.commands.core import Command, Verb
from eventq.commands.events import Position, hold_consumer
from eventq.commands.manage import change_priority, promote_jobs, remove_jobs
from eventq.commands.repair import examine_jobs, repair_jobs, repair_line, repair_upkeep
from eventq.commands.upkeep import run_timers
from eventq.commands.watch import Vital, report_worker
from eventq.commands.work import release_jobs
from eventq.operations.examining import Damage, Examined, examine, examine_strays
from eventq.operations.repairing import mend
from eventq.states import JobState

from .lab import DAY_MS, NO_LEASE, RULES, Lab, held, new, outcome, progress

R = TypeVar("R")
OF_JOBS = ("jobs", "data", "runs", "results", "progress", "logs")
STATES = ("prioritized", "delayed", "leases", "completed", "failed")


def perform(lab: Lab, steps: Generator[Command[Any] | Verb[Any], Any, R]) -> R:
    """Perform an operation."""
    reply: Any = None
    while True:
        try:
            step = steps.send(reply)
        except StopIteration as ended:
            return ended.value  # type: ignore[no-any-return]
        reply = step.parse(lab.redis(*step.words)) if isinstance(step, Verb) else lab.call(step, "doctor")


def look(lab: Lab) -> Examined:
    """Examine the queue."""
    return perform(lab, examine(lab.keys, None, None))


def repair(lab: Lab) -> dict[Damage, list[str]]:
    """Examine and mend until there is nothing to mend; what was mended."""
    mended: dict[Damage, list[str]] = {}
    for _ in range(4):
        found = look(lab)
        if not found.mendable(lost_jobs=False):
            break
        for damage, names in perform(lab, mend(lab.keys, found)).items():
            mended[damage] = mended.get(damage, []) + names
    assert look(lab).damage == {}
    return mended


def work(lab: Lab) -> None:
    """Fill the queue: `STATE` is a job in each state, the other ids say what happened to them."""
    lab.finish(new(job_id="completed", data='"' + "x" * 2000 + '"'))
    lab.finish(new(job_id="failed"), word="failed")
    lab.finish(new(job_id="pinned"), rule="age:5000000")
    lab.add(new(job_id="retried"), new(job_id="active"), new(job_id="released"), new(job_id="active_2", priority=4))
    retried, active, released, _ = lab.claim(4, progress=[]).jobs
    lab.claim(0, outcomes=[outcome(retried, "retry", 60_000)], progress=[progress(active, "50")])
    lab.call(release_jobs(lab.keys, [held(released)]))
    lab.add(*[new(job_id=f"waiting_{n}") for n in range(3)], new(job_id="delayed", delay=100), new(job_id="delayed_2", delay=50))
    lab.add(
        new(job_id="prioritized", priority=3),
        new(job_id="prioritized_2", priority=3),
        new(job_id="promoted", delay=9, priority=2),
    )
    lab.call(promote_jobs(lab.keys, ["promoted"]))
    lab.add(new(job_id="gone"), new(job_id="moved"))
    lab.call(remove_jobs(lab.keys, ["gone"]))
    lab.call(change_priority(lab.keys, "moved", 7, lifo=False))


def content(lab: Lab) -> dict[str, Any]:
    """Return all that is stored but the records of calls, which every call leaves, and markers, which are hints."""
    return {column: held for column, held in lab.dump().items() if column not in ("calls", "timers", "marker")}


@dataclass(frozen=True)
class Planted:
    """words: what a plain client sends. is_whole: afterwards the queue is as it was before, to the byte, but for events."""

    words: tuple[tuple[str | int, ...], ...]
    damage: Damage
    names: tuple[str, ...]
    is_whole: bool = True
    keeps_history: bool = True


def take(column: str, *names: str) -> tuple[str | int, ...]:
    """Take members out of a column."""
    if column == "wait":
        return ("LREM", column, 0, names[0])
    return ("ZREM" if column in (*STATES, "timers") else "HDEL", column, *names)


DAMAGES = {
    "waiting, in no line": Planted((take("wait", "waiting_1"),), Damage.NOT_IN_LINE, ("waiting_1",), is_whole=False),
    "released, in no line": Planted((take("wait", "released"),), Damage.NOT_IN_LINE, ("released",)),
    "the line deleted": Planted(
        (("DEL", "wait"),),
        Damage.NOT_IN_LINE,
        ("released", "waiting_0", "waiting_1", "waiting_2"),
        is_whole=False,
    ),
    "prioritized, in no state": Planted((take("prioritized", "prioritized"),), Damage.NO_STATE, ("prioritized",), is_whole=False),
    "promoted, in no state": Planted((take("prioritized", "promoted"),), Damage.NO_STATE, ("promoted",)),
    "delayed, in no state": Planted((take("delayed", "delayed"),), Damage.NO_STATE, ("delayed",)),
    "retried, in no state": Planted((take("delayed", "retried"),), Damage.NO_STATE, ("retried",)),
    "completed, in no state": Planted((take("completed", "completed"),), Damage.NO_STATE, ("completed",)),
    "failed, in no state": Planted((take("failed", "failed"),), Damage.NO_STATE, ("failed",)),
    "kept by its own rule, in no state": Planted((take("completed", "pinned"),), Damage.NO_STATE, ("pinned",)),
    "a state deleted": Planted((("DEL", "delayed"),), Damage.NO_STATE, ("delayed", "delayed_2", "retried")),
    "no lease": Planted((take("leases", "active"),), Damage.NO_LEASE, ("active",), is_whole=False),
    "no lease, with a priority": Planted((take("leases", "active_2"),), Damage.NO_LEASE, ("active_2",), is_whole=False),
    "leases deleted": Planted((("DEL", "leases"),), Damage.NO_LEASE, ("active", "active_2"), is_whole=False),
    "completed without a run": Planted(
        (take("runs", "completed"),), Damage.LOST_RUN, ("completed",), is_whole=False, keeps_history=False
    ),
    "failed without a run": Planted((take("runs", "failed"),), Damage.LOST_RUN, ("failed",), is_whole=False, keeps_history=False),
    "kept by its own rule, without a run": Planted(
        (take("runs", "pinned"),), Damage.LOST_RUN, ("pinned",), is_whole=False, keeps_history=False
    ),
    "running without a run": Planted(
        (take("runs", "active"),), Damage.LOST_RUN, ("active",), is_whole=False, keeps_history=False
    ),
    "waiting and delayed": Planted((("ZADD", "delayed", 5, "waiting_0"),), Damage.MISPLACED, ("waiting_0",)),
    "delayed without a run": Planted(
        (take("runs", "retried"),), Damage.LOST_RUN, ("retried",), is_whole=False, keeps_history=False
    ),
    "prioritized without a run": Planted(
        (take("runs", "promoted"),), Damage.LOST_RUN, ("promoted",), is_whole=False, keeps_history=False
    ),
    "completed and failed": Planted((("ZADD", "failed", 5, "completed"),), Damage.MISPLACED, ("completed",)),
    "running and in every state": Planted(
        tuple(("ZADD", column, 5, "active") for column in (*STATES, "waiting_children") if column != "leases"),
        Damage.MISPLACED,
        ("active",),
    ),
    "new, and among the completed": Planted(
        tuple(("ZADD", "completed", 5, job_id) for job_id in ("delayed", "prioritized", "waiting_0")),
        Damage.MISPLACED,
        ("delayed", "prioritized", "waiting_0"),
    ),
    "retried, but among the completed": Planted(
        (take("delayed", "retried"), ("ZADD", "completed", 5, "retried")), Damage.MISPLACED, ("retried",)
    ),
    "running, but among the failed": Planted(
        (take("leases", "active"), ("ZADD", "failed", 5, "active")), Damage.NO_LEASE, ("active",), is_whole=False
    ),
    "holes forgotten": Planted((("HSET", "meta", "holes", 0),), Damage.HOLES, ("0", "2")),
    "too many holes": Planted((("HSET", "meta", "holes", 99),), Damage.HOLES, ("99", "2")),
    "holes below none": Planted((("HSET", "meta", "holes", -3),), Damage.HOLES, ("-3", "2")),
    "twice in line": Planted((("RPUSH", "wait", "waiting_0"),), Damage.HOLES, ("2", "3"), is_whole=False),
    "an entry of nobody": Planted((("LPUSH", "wait", "nobody"),), Damage.HOLES, ("2", "3"), is_whole=False),
    "left-over fields": Planted(
        tuple(("HSET", column, "nobody", "{}") for column in OF_JOBS if column != "jobs"), Damage.ORPHAN, ("nobody",)
    ),
    "ghosts in states": Planted(
        tuple(("ZADD", column, 5, f"ghost_{column}") for column in (*STATES, "waiting_children")),
        Damage.ORPHAN,
        tuple(sorted(f"ghost_{column}" for column in (*STATES, "waiting_children"))),
        is_whole=False,
        keeps_history=False,
    ),
    "a ghost with a hostile name": Planted(
        (("ZADD", "failed", 5, 'a"\n\\'), ("HSET", "runs", 'a"\n\\', "active - 0 1 1 1 0 0 0 x w")), Damage.ORPHAN, ('a"\n\\',)
    ),
    "a finished job's record": Planted((take("jobs", "completed"),), Damage.ORPHAN, ("completed",), is_whole=False),
    "a delayed job's record": Planted((take("jobs", "delayed"),), Damage.ORPHAN, ("delayed",), is_whole=False),
    "a prioritized job's record": Planted((take("jobs", "promoted"),), Damage.ORPHAN, ("promoted",), is_whole=False),
    "a released job's record": Planted((take("jobs", "released"),), Damage.ORPHAN, ("released",), is_whole=False),
    "a running job's record and lease": Planted(
        (take("jobs", "active"), take("leases", "active")), Damage.NO_LEASE, ("active",), is_whole=False, keeps_history=False
    ),
    "a running job's record and lease, with a priority": Planted(
        (take("jobs", "active_2"), take("leases", "active_2")),
        Damage.NO_LEASE,
        ("active_2",),
        is_whole=False,
        keeps_history=False,
    ),
}


def plant(lab: Lab, words: tuple[tuple[str | int, ...], ...]) -> None:
    """Damage the queue; the second word of each names a column."""
    for verb, column, *rest in words:
        lab.redis(verb, lab.keys[str(column)], *rest)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_mended(lab: Lab, name: str) -> None:
    """It is found as what it is, mended, told where a state changed, and afterwards all invariants hold; again changes nothing."""
    case = DAMAGES[name]
    work(lab)
    assert look(lab).damage == {}
    before, events = content(lab), len(lab.events())
    plant(lab, case.words)
    found = look(lab)
    assert {case.damage: sorted(case.names)} == {damage: sorted(names) for damage, names in found.damage.items()}
    damaged = content(lab)
    assert damaged == content(lab), "an examination changes nothing"

    assert sorted(repair(lab).get(case.damage, ())) == sorted(case.names)

    if case.is_whole:
        assert content(lab) == before
    mended = content(lab)
    assert lab.call(repair_jobs(lab.keys, case.names), "doctor") and repair(lab) == {}
    assert content(lab) == mended, "again, and nothing is left to mend"
    told = [event.kind for event in lab.events()[events:]]
    assert told == {
        Damage.NO_LEASE: ["stalled"] * len(case.names) + (["removed"] if "record" in name else []),
        Damage.LOST_RUN: ["stalled"] if name.startswith("running") else [],
        Damage.ORPHAN: ["removed"] if "record" in name else told,
    }.get(case.damage, [])
    if not case.keeps_history:
        forget_history(lab)


def forget_history(lab: Lab) -> None:
    """Take the first entry off the stream: what was lost for good is in no recount of it."""
    lab.redis("XDEL", lab.keys["events"], lab.entries()[0].id)


def test_every_run_deleted(lab: Lab) -> None:
    """What ran is not run again, what was to run later still does; who had started goes back to the line, told as stalled."""
    work(lab)
    before = {name: lab.state(name) for name in lab.column("jobs")}
    lab.redis("DEL", lab.keys["runs"])
    mended = repair(lab)
    assert {"completed", "failed", "pinned", "retried", "promoted", "active", "active_2"} <= set(mended.get(Damage.LOST_RUN, ()))
    after = {name: lab.state(name) for name in before}
    assert after == before | {"active": JobState.WAITING, "active_2": JobState.PRIORITIZED}
    assert lab.job("retried").run.ready_ms == int(lab.column("delayed")["retried"])
    forget_history(lab)


def test_the_order_of_the_line_is_restored(lab: Lab) -> None:
    """More than a call of jobs are put back, the one that has waited longest first, before what came later."""
    names = [f"job_{n:03}" for n in range(600)]
    for name in names:
        if int(name[-3:]) % 100 == 0:
            lab.advance(0.01)
        lab.add(new(job_id=name))
    lab.redis("DEL", lab.keys["wait"])
    lab.advance(1)
    lab.add(new(job_id="later"))
    assert repair(lab) == {Damage.NOT_IN_LINE: names}
    assert lab.waiting() == [*names, "later"]
    assert "0" in lab.marker(), "an idle worker is told"


def test_what_was_mended_runs(lab: Lab) -> None:
    """Everything that was lost is claimed afterwards, once, in the right order; its former runs may record nothing."""
    work(lab)
    lab.add(new(job_id="risky", priority=1))
    for column in ("wait", "prioritized", "leases"):
        lab.redis("DEL", lab.keys[column])
    stored = len(lab.column("jobs"))
    repair(lab)
    claimed = [job.id for job in lab.claim(50).jobs]
    assert len(set(claimed)) == len(claimed) == stored - 6
    assert claimed[:5] == ["released", "waiting_0", "waiting_1", "waiting_2", "active"]
    assert lab.total("stalled") == 2
    assert lab.call(run_timers(lab.keys, RULES), "scheduler") is False


@pytest.mark.parametrize("said", [0, 1, -2])
def test_a_queue_whose_holes_are_miscounted_goes_on(lab: Lab, said: int) -> None:
    """More entries of nobody than meta says: they are dropped, and the call that claims is not undone half-way by it."""
    lab.redis("RPUSH", lab.keys["wait"], "nobody", "nobody_else")
    lab.add(new(job_id="own"))
    lab.redis("HSET", lab.keys["meta"], "holes", said)
    assert [job.id for job in lab.claim(3).jobs] == ["own"]
    assert lab.waiting() == []
    repair(lab)


def test_a_job_due_at_once_is_told_to_sleepers(lab: Lab) -> None:
    """A worker that sleeps until something is due is woken for what is back among the delayed."""
    lab.add(new(job_id="soon", delay=5))
    lab.redis("DEL", lab.keys["delayed"], lab.keys["marker"])
    repair(lab)
    assert "due" in lab.marker()


# -- looked at again, by the script that mends


def test_what_is_right_by_now_is_left(lab: Lab) -> None:
    """Whatever is named, a script changes only what is wrong at that moment: of a sound queue nothing, of one named twice once."""
    work(lab)
    before, ids = content(lab), [*lab.column("jobs"), "nobody", NO_LEASE]
    assert {*lab.call(repair_jobs(lab.keys, ids), "doctor")} == {"f", "w", "m"}
    some = [(name, (lab.column("runs") or {}).get(name, "")) for name in ids]
    answer = lab.call(repair_line(lab.keys, some, recount=True), "doctor")
    assert (set(answer.letters), answer.said, answer.holes) == ({"s"}, "2", "2")
    assert content(lab) == before
    lab.redis("ZREM", lab.keys["leases"], "active")
    assert lab.call(repair_jobs(lab.keys, ["active", "active"]), "doctor") == "am"
    assert lab.job("active").run.stalls == 1
    lab.redis("LREM", lab.keys["wait"], 0, "waiting_0")
    twice = lab.call(repair_line(lab.keys, [("waiting_0", ""), ("waiting_0", "")], recount=True), "doctor")
    assert (twice.letters, lab.waiting().count("waiting_0")) == ("ps", 1)


def test_a_job_that_has_moved_since_is_not_put_in_line(lab: Lab) -> None:
    """It was claimed and given back while the line was read: its run says so, wherever in the line it stands now."""
    lab.add(new(job_id="moved"), *[new() for _ in range(1_200)])
    (job,) = lab.claim().jobs
    lab.call(release_jobs(lab.keys, [held(job)]))
    lab.add(*[new(lifo=True) for _ in range(1_200)])
    lab.redis("LREM", lab.keys["wait"], 0, "moved")
    before = content(lab)
    assert lab.call(repair_line(lab.keys, [("moved", "")], recount=False), "doctor").letters == "s"
    assert content(lab) == before
    run = lab.column("runs")["moved"]
    assert lab.call(repair_line(lab.keys, [("moved", run)], recount=False), "doctor").letters == "p"


def test_a_long_line_with_everybody_in_it_has_nobody_lost(lab: Lab) -> None:
    """A line of several pages is read whole; of a lost job in it one entry is missing, and that one comes back."""
    names = [f"j{n}" for n in range(5_000)]
    for start in range(0, 5_000, 500):
        lab.add(*[new(job_id=name) for name in names[start : start + 500]])
    assert look(lab).damage == {}
    lab.redis("LREM", lab.keys["wait"], 0, "j2500")
    lab.redis("ZADD", lab.keys["completed"], 5, "j2400")
    assert repair(lab) == {Damage.NOT_IN_LINE: ["j2500"], Damage.MISPLACED: ["j2400"]}, "it stands in line: it never ran"
    assert sorted(lab.waiting()) == sorted(names)


def test_a_run_without_its_job_is_left_to_end(lab: Lab) -> None:
    """While its worker holds the lease nothing is taken from it, and the holes are not counted anew; its end is the end of it."""
    work(lab)
    lab.redis("HDEL", lab.keys["jobs"], "active")
    lab.redis("LREM", lab.keys["wait"], 0, "released")
    found = look(lab)
    assert (found.damage.get(Damage.ORPHAN_RUNNING), found.may_recount) == (["active"], False)
    assert perform(lab, mend(lab.keys, found)) == {Damage.NOT_IN_LINE: ["released"]}
    assert lab.column("runs")["active"].startswith("active ") and "active" in lab.members("leases")
    lab.redis("ZADD", lab.keys["leases"], 5, "active")
    assert repair(lab)[Damage.NO_LEASE] == ["active"]
    forget_history(lab)


def test_a_count_of_holes_that_is_none_breaks_no_repair(lab: Lab) -> None:
    """The run of a job that is gone leaves a hole behind, whatever was counted until then."""
    work(lab)
    lab.redis("HDEL", lab.keys["jobs"], "active")
    lab.redis("ZADD", lab.keys["leases"], 5, "active")
    lab.redis("HSET", lab.keys["meta"], "holes", "x")
    assert repair(lab)[Damage.NO_LEASE] == ["active"]
    assert (lab.meta("holes") or "").isdecimal()
    forget_history(lab)


def test_what_cannot_be_read_is_told_and_left(lab: Lab) -> None:
    """A damaged record or run, a state that is none, ids and names that would break events: as they are, wherever they stand."""
    work(lab)
    lab.sound = False
    lab.redis(
        "HSET", lab.keys["jobs"], "bad", "nonsense", 'a"b', "1\t1\t\t\t\tjob\t\n{}\n1", "quoted", '1\t1\t\t\t\tj"b\t\n{}\n1'
    )
    lab.redis("HSET", lab.keys["jobs"], "spec", "1\t1\t5\t\t\tjob\t\n{\n1")
    lab.redis("ZADD", lab.keys["delayed"], 5, "spec")
    lab.redis("HSET", lab.keys["runs"], "delayed", "what", "retried", "dreaming - 0 1 1 1 0 0 0 - w")
    lab.redis(
        "HSET", lab.keys["runs"], "waiting_0", "prioritized - 0 1 1 1 0 0 0 - w", "waiting_1", "waiting - 0 1 1 1 0 0 0 x w"
    )
    lab.redis("HDEL", lab.keys["runs"], "completed")
    lab.redis("ZADD", lab.keys["failed"], 5, "completed")
    before, names = content(lab), ["bad", 'a"b', "quoted", "spec", "delayed", "retried", "waiting_0", "waiting_1", "completed"]
    found = look(lab)
    assert {Damage.UNREADABLE: sorted(names)} == {damage: sorted(ids) for damage, ids in found.damage.items()}
    assert not found.may_recount and not found.mendable(lost_jobs=True)
    assert perform(lab, mend(lab.keys, found)) == {}
    assert lab.call(repair_jobs(lab.keys, names), "doctor") == "dddfddddd"
    assert content(lab) == before


def test_where_the_records_are_lost_nothing_else_is_taken(lab: Lab) -> None:
    """More orphans than jobs: a backup may have the records, so what is left stays, unless it is said that it is to go."""
    work(lab)
    lab.redis("DEL", lab.keys["jobs"])
    lab.redis("DEL", lab.keys["leases"])
    found = look(lab)
    assert found.is_mostly_lost and found.stored == 0
    perform(lab, mend(lab.keys, found))
    assert {"completed", "failed", "delayed", "retried"} <= {*lab.column("runs"), *lab.members("delayed")}
    perform(lab, mend(lab.keys, look(lab), lost_jobs=True))
    repair(lab)
    assert set(content(lab)) == {"meta", "totals", "events", "wait"}
    assert lab.counts() == {}
    forget_history(lab)


# -- what should end some day


def test_records_of_calls_and_workers_get_their_timers(lab: Lab) -> None:
    """And end then: a call a day after it was made, a worker ten minutes after its hold. What has a timer keeps it."""
    lab.add(new())
    vital = Vital("one", 700, 0, 4, 1, 0, 0, "{}")
    lab.call(report_worker(lab.keys, "silent", 15_000, vital), "beat")
    lab.call(report_worker(lab.keys, "alive", 15_000, vital), "beat")
    kept = lab.column("timers")
    lab.redis("ZREM", lab.keys["timers"], "worker silent", "call producer")
    lab.redis("HSET", lab.keys["calls"], "damaged", "what")
    found = look(lab)
    assert (set(found.damage[Damage.CALLS]), found.damage[Damage.WORKERS]) == ({"producer", "damaged"}, ["silent"])
    repair(lab)
    timers = lab.column("timers")
    assert {name: timers[name] for name in kept} == kept
    lab.advance(700)
    lab.call(run_timers(lab.keys, RULES), "scheduler")
    assert lab.column("workers") is None
    lab.advance(DAY_MS / 1000)
    lab.call(run_timers(lab.keys, RULES), "scheduler")
    assert set(lab.column("calls")) == {"scheduler"}


def test_readers_are_forgotten_by_age_only(lab: Lab) -> None:
    """Those who neither held nor saved for so long; nobody without an age, and nobody of the last day whatever is said."""
    lab.add(new())
    now = lab.now()
    lab.call(hold_consumer(lab.keys, "old", "me", 10_000, position=Position("e", "1-0", 1), state="s"), "old")
    lab.advance(40 * DAY_MS / 1000)
    lab.call(hold_consumer(lab.keys, "gone", "me", 0, position=Position("e", "1-0", 1), state="s"), "gone")
    lab.call(hold_consumer(lab.keys, "live", "me", 10_000, position=Position("e", "1-0", 1), state="s"), "live")
    lab.redis("HSET", lab.keys["consumers"], "damaged", "what", "holding", f"me {lab.now() + 9_000} {now} e 1-0 1 s")
    assert Damage.READERS not in look(lab).damage
    found = perform(lab, examine(lab.keys, 30 * DAY_MS, None))
    assert found.damage[Damage.READERS] == ["old"]
    everybody = ["old", "gone", "live", "holding", "damaged", "nobody"]
    assert lab.call(repair_upkeep(lab.keys, "consumers", everybody, away_ms=50 * DAY_MS), "doctor") == "ssssss"
    assert lab.call(repair_upkeep(lab.keys, "consumers", everybody, away_ms=0), "doctor") == "rsssss"
    assert set(lab.column("consumers")) == {"gone", "live", "holding", "damaged"}


# -- told only


def test_a_key_of_a_wrong_type_is_told(lab: Lab) -> None:
    """Nothing else is looked at; keys that are no column are told beside the rest."""
    work(lab)
    stray = lab.keys["meta"] + "_old"
    lab.redis("SET", stray, "1")
    assert perform(lab, examine_strays(lab.keys)) == [stray]
    lab.redis("SET", lab.keys["progress"], "text")
    found = look(lab)
    assert found.wrong_types == [f"{lab.keys['progress']} is a string, not a hash"]
    assert found.damage == {} and perform(lab, mend(lab.keys, found)) == {}
    lab.redis("DEL", lab.keys["progress"], stray)


@pytest.mark.parametrize("wrong", [("starts job", 1), ("starts job", -1), ("completed job", 99)])
def test_totals_that_cannot_be_right_are_told_and_left(lab: Lab, wrong: tuple[str, int]) -> None:
    """Too many or too few starts for what became of them."""
    work(lab)
    assert look(lab).ledger == ""
    lab.sound = False
    lab.redis("HINCRBY" if wrong[1] in (1, -1) else "HSET", lab.keys["totals"], *wrong)
    totals = lab.column("totals")
    assert look(lab).ledger
    repair(lab)
    assert lab.column("totals") == totals


def test_an_examination_is_answered_a_letter_per_job(lab: Lab) -> None:
    """And by the holes alone when nobody is asked about."""
    work(lab)
    answer = lab.call(examine_jobs(lab.keys, ["active", "waiting_0", "nobody"]))
    assert (answer.letters, answer.said, answer.holes) == ("fwm", "2", "2")
    assert lab.call(examine_jobs(lab.keys, [])).letters == ""
