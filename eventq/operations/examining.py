"""Looking at everything that is stored of a queue, in calls of bounded size. A queue may work meanwhile: what a job says and
where it stands is read in one script; where that is not enough, what looks wrong is looked at again, and counts if it stayed so.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from eventq.commands.inspect import consumers, hash_size, hash_values, set_scores
from eventq.commands.repair import examine_jobs, key_type, line_end, walk_hash, walk_keys, walk_set
from eventq.commands.watch import observe_queue
from eventq.keys import COLUMNS, type_of
from eventq.limits import CALL_JOBS, SLICE_JOBS
from eventq.records import UnreadableRecord, parse_record, parse_run
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from eventq.commands.core import Command, Steps, Verb
    from eventq.commands.repair import Look, Page
    from eventq.commands.watch import QueueState
    from eventq.keys import QueueKeys

    OnProgress = Callable[[int], None] | None


class Damage(StrEnum):
    """What can be wrong with what is stored."""

    ORPHAN = "orphan"
    ORPHAN_RUNNING = "orphan_running"
    NO_LEASE = "no_lease"
    LOST_RUN = "lost_run"
    NO_STATE = "no_state"
    MISPLACED = "misplaced"
    UNREADABLE = "unreadable"
    NOT_IN_LINE = "not_in_line"
    HOLES = "holes"
    CALLS = "calls"
    WORKERS = "workers"
    READERS = "readers"


#: The letters of lua/include/standing.
LETTERS: Final = {
    "o": Damage.ORPHAN,
    "l": Damage.ORPHAN_RUNNING,
    "a": Damage.NO_LEASE,
    "r": Damage.LOST_RUN,
    "s": Damage.NO_STATE,
    "x": Damage.MISPLACED,
    "d": Damage.UNREADABLE,
}
#: What repair_jobs mends.
OF_JOBS: Final = (Damage.ORPHAN, Damage.NO_LEASE, Damage.LOST_RUN, Damage.NO_STATE, Damage.MISPLACED)
_TOLD_ONLY: Final = (Damage.ORPHAN_RUNNING, Damage.UNREADABLE)
_SETS: Final = ("prioritized", "delayed", "leases", "waiting_children", "completed", "failed")
#: Fields read per call: their texts come along, and may be as large as data, results and logs are.
_BESIDE: Final = {"runs": 500, "data": 20, "results": 50, "progress": 100, "logs": 50}
#: Columns that are not used yet: they may be anything.
_RESERVED: Final = ("dedup", "outbox", "children", "groups", "group_turns")
_LINE_PAGE: Final = 2000
_KEYS_PAGE: Final = 1000


@dataclass(slots=True)
class Examined:
    """What a whole examination found: names by damage (of holes two numbers: said, and there are).

    wrong_types: sentences; nothing else was looked at then. strays: keys that are no column, None where nobody looked.
    ledger: what cannot be right of the totals, '' for nothing. stored: how many jobs. lost: waiting jobs that stand in no
    line, with their runs, the oldest first. in_line: of the misplaced those that are known to stand in line. may_recount:
    whether every job is known to stand in its state, so that the rest of the line are holes.
    """

    damage: dict[Damage, list[str]] = field(default_factory=dict[Damage, "list[str]"])
    wrong_types: list[str] = field(default_factory=list[str])
    strays: list[str] | None = None
    ledger: str = ""
    stored: int = 0
    lost: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    in_line: set[str] = field(default_factory=set[str])
    may_recount: bool = False

    def add(self, damage: Damage, names: Iterable[str]) -> None:
        """Note them."""
        more = list(names)
        if more:
            self.damage.setdefault(damage, []).extend(more)

    def mendable(self, *, lost_jobs: bool) -> dict[Damage, list[str]]:
        """Return what a repair mends. lost_jobs: also what is left of jobs where more of them are lost than stored."""
        left = {*_TOLD_ONLY, *([Damage.ORPHAN] if self.is_mostly_lost and not lost_jobs else ())}
        return {damage: names for damage, names in self.damage.items() if damage not in left}

    @property
    def is_mostly_lost(self) -> bool:
        """Whether more jobs are lost than are stored: then it is the records that are missing, and a backup may have them."""
        return len(self.damage.get(Damage.ORPHAN, ())) > self.stored


def examine(keys: QueueKeys, away_ms: int | None, on_progress: OnProgress) -> Steps[Examined]:
    """Look at everything. away_ms: also for durable readers who have been away for so long."""
    found = Examined(wrong_types=(yield from examine_types(keys)))
    if found.wrong_types:
        return found
    waiting = yield from _examine_jobs(keys, found, on_progress)
    yield from _examine_line(keys, found, waiting)
    yield from _examine_upkeep(keys, found)
    queue: QueueState = yield observe_queue(keys)
    found.ledger = _unbalanced(queue)
    if away_ms is not None:
        found.add(Damage.READERS, _away(queue.now_ms - away_ms, (yield consumers(keys))))
    return found


def examine_types(keys: QueueKeys) -> Generator[Command[Any] | Verb[Any], Any, list[str]]:
    """Look whether each column is of its type; return sentences about those that are not."""
    wrong: list[str] = []
    for column in COLUMNS:
        kind, expected = (yield key_type(keys, column)), type_of(column)
        if column not in _RESERVED and kind not in (expected, "none"):
            wrong.append(f"{keys[column]} is a {kind}, not a {expected}")
    return wrong


def _examine_jobs(keys: QueueKeys, found: Examined, on_progress: OnProgress) -> Steps[set[str]]:
    """Ask the server of every job that is stored, or named anywhere; return those that wait."""
    known: set[str] = set()
    waiting: set[str] = set()
    for column, count in [("jobs", CALL_JOBS), *((column, CALL_JOBS) for column in _SETS), *_BESIDE.items()]:
        cursor = ""
        while cursor != "0":
            walk = walk_set if column in _SETS else walk_hash
            page: Page = yield walk(keys, column, cursor or "0", count)
            cursor = page.cursor
            # One member of leases is no job.
            ids = [each for each in dict.fromkeys(page.names) if each not in known and not each.startswith("no-job:")]
            known.update(ids)
            if column == "jobs":
                found.add(Damage.UNREADABLE, _unreadable(page))
            for start in range(0, len(ids), SLICE_JOBS):
                some = ids[start : start + SLICE_JOBS]
                look: Look = yield examine_jobs(keys, some)
                waiting.update(_with_letter("w", some, look))
                for letter, damage in LETTERS.items():
                    found.add(damage, _with_letter(letter, some, look))
            if on_progress is not None:
                on_progress(len(known))
    found.stored = yield hash_size(keys, "jobs")
    for damage, names in found.damage.items():
        found.damage[damage] = list(dict.fromkeys(names))
    return waiting


def _with_letter(letter: str, ids: Sequence[str], look: Look) -> list[str]:
    return [job_id for job_id, each in zip(ids, look.letters, strict=True) if each == letter]


def _unreadable(page: Page) -> Generator[str]:
    """Look whether records can be read whole: a script needs less of them."""
    for job_id, text in zip(page.names, page.texts, strict=True):
        try:
            parse_record(text, "null")
        except UnreadableRecord:
            yield job_id


def _examine_line(keys: QueueKeys, found: Examined, waiting: set[str]) -> Steps[None]:
    """Look for jobs that wait and are not in line, and count its holes.

    The line is read from its end, which claims do not move. A job whose run says the same before and after a reading waited all
    the while, so it would have been read.
    """
    line = yield from _read_line(keys)
    _tell_new_jobs(found, line)
    lost = yield from _waiting_runs(keys, sorted(waiting - line))
    if lost:
        line = yield from _read_line(keys)
        before = {job_id: run for job_id, run in lost.items() if job_id not in line}
        after = yield from _waiting_runs(keys, list(before))
        lost = {job_id: run for job_id, run in after.items() if before[job_id] == run}
        found.lost = yield from _by_age(keys, lost)
        found.add(Damage.NOT_IN_LINE, [job_id for job_id, _ in found.lost])
    placeless = yield from _placeless(keys, [each for each in found.damage.get(Damage.UNREADABLE, ()) if each not in line])
    if placeless or any(damage in found.damage for damage in (*OF_JOBS, Damage.ORPHAN_RUNNING)):
        return
    found.may_recount = True
    look: Look = yield examine_jobs(keys, [])
    if look.said != look.holes and not found.lost:
        found.add(Damage.HOLES, [look.said, look.holes])


def _tell_new_jobs(found: Examined, line: set[str]) -> None:
    """Take who is in line out of those whose run is lost: a claim would have taken it out of the line, so it never ran."""
    without_run = found.damage.pop(Damage.LOST_RUN, [])
    found.in_line = line.intersection(without_run)
    found.add(Damage.LOST_RUN, [job_id for job_id in without_run if job_id not in line])
    found.add(Damage.MISPLACED, [job_id for job_id in without_run if job_id in line])


def _read_line(keys: QueueKeys) -> Steps[set[str]]:
    line: set[str] = set()
    skipped = 0
    while page := (yield line_end(keys, skipped, _LINE_PAGE)):
        line.update(page)
        skipped += len(page)
    return line


def _waiting_runs(keys: QueueKeys, ids: Sequence[str]) -> Steps[dict[str, str]]:
    """Return the runs ('' none) of those that wait and stand in no set."""
    found: dict[str, str] = {}
    for start in range(0, len(ids), SLICE_JOBS):
        some = ids[start : start + SLICE_JOBS]
        runs = yield hash_values(keys, "runs", some)
        of = dict(zip(some, runs, strict=True))
        found |= {job_id: of[job_id] or "" for job_id in _with_letter("w", some, (yield examine_jobs(keys, some)))}
    return found


def _by_age(keys: QueueKeys, runs: dict[str, str]) -> Steps[list[tuple[str, str]]]:
    """Return the jobs with their runs, the one that has waited longest first."""
    ids, ready = list(runs), dict[str, int]()
    for start in range(0, len(ids), SLICE_JOBS):
        some = ids[start : start + SLICE_JOBS]
        for job_id, record in zip(some, (yield hash_values(keys, "jobs", some)), strict=True):
            try:
                ready[job_id] = parse_run(runs[job_id]).ready_ms if runs[job_id] else parse_record(record or "", "null").added_ms
            except UnreadableRecord:
                ready[job_id] = 0
    return sorted(runs.items(), key=lambda item: (ready[item[0]], item[0]))


def _placeless(keys: QueueKeys, ids: Sequence[str]) -> Steps[list[str]]:
    """Return those that stand in no set."""
    left = list(ids)
    for column in _SETS:
        scores: list[float | None] = (yield set_scores(keys, column, left)) if left else []
        left = [job_id for job_id, score in zip(left, scores, strict=True) if score is None]
    return left


def _examine_upkeep(keys: QueueKeys, found: Examined) -> Steps[None]:
    """Look for records of calls and workers that nothing would ever end."""
    for damage, timer in ((Damage.CALLS, "call"), (Damage.WORKERS, "worker")):
        cursor = ""
        while cursor != "0":
            page: Page = yield walk_hash(keys, damage.value, cursor or "0", CALL_JOBS)
            cursor = page.cursor
            if page.names:
                scores = yield set_scores(keys, "timers", [f"{timer} {name}" for name in page.names])
                timeless = [name for name, score in zip(page.names, scores, strict=True) if score is None]
                still: list[str | None] = (yield hash_values(keys, damage.value, timeless)) if timeless else []
                found.add(damage, [name for name, text in zip(timeless, still, strict=True) if text is not None])


def _away(before_ms: int, stored: dict[str, str]) -> Generator[str]:
    for name, text in sorted(stored.items()):
        parts = text.split(" ", 3)
        if len(parts) == 4 and parts[1].isdecimal() and parts[2].isdecimal() and max(int(parts[1]), int(parts[2])) <= before_ms:
            yield name


def _unbalanced(queue: QueueState) -> str:
    """Return how the totals do not add up. A job failed by its stalls is in two of them, so it is a range they have to be in."""
    sums: dict[str, int] = dict.fromkeys(("starts", "completed", "retrying", "failed", "stalled", "released"), 0)
    for name, number in queue.totals.items():
        kind = name.partition(" ")[0]
        sums[kind] = sums.get(kind, 0) + number
    most = sum(sums[kind] for kind in ("completed", "retrying", "failed", "stalled", "released"))
    most += queue.counts[JobState.ACTIVE]
    least = most - min(sums["failed"], sums["stalled"])
    if least <= sums["starts"] <= most:
        return ""
    return f"{sums['starts']} starts, but {least if sums['starts'] < least else most} outcomes and running jobs"


def examine_strays(keys: QueueKeys) -> Generator[Command[Any] | Verb[Any], Any, list[str]]:
    """Return keys that look like columns of the queue and are none. The server lists all its keys for it, or may not.

    The braces of a tag are nothing special in a pattern.
    """
    known, found, cursor = {keys[column] for column in COLUMNS}, set[str](), ""
    while cursor != "0":
        page: Page = yield walk_keys(f"{keys['meta'].removesuffix('meta')}*", cursor or "0", _KEYS_PAGE)
        cursor = page.cursor
        found |= set(page.names) - known
    return sorted(found)
