"""`eventq doctor --all` and `--repair`: everything of a queue examined, in words, and what was mended of it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.findings import OK, PROBLEM, UNKNOWN, WARNING, Finding, some
from eventq.cli.progress import progress
from eventq.cli.runtime import UsageError
from eventq.cli.spans import parse_seconds
from eventq.cli.text import counted, number
from eventq.commands.inspect import hash_size
from eventq.durations import to_ms
from eventq.errors import ScriptError, ServerRefused
from eventq.limits import CALL_JOBS, READER_LIVE_MS
from eventq.operations.examining import Damage, Examined, examine, examine_strays
from eventq.operations.repairing import mend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys

__all__ = ["Mended", "Treatment", "examine_all", "findings_of", "plan_of", "repair_queue", "treatment"]

#: Rounds of examining and mending: what the first finds may hide something from it, and a queue at work goes on.
_ROUNDS: Final = 4
#: Ids in JSON.
_MOST_IDS: Final = 1000
_LOST: Final = "the server lost writes, or somebody else wrote here"
#: Damage -> what is found of so many jobs, what was done about it, what would be done to so many.
_JOBS: Final[dict[Damage, tuple[str, str, str]]] = {
    Damage.ORPHAN: (
        "not stored, but something is left of {}",
        "removed what was left of {} not stored",
        "remove what is left of",
    ),
    Damage.NO_LEASE: (
        "said to be active, but without a lease: {}",
        "gave {} without a lease back, as stalled",
        "give back as stalled",
    ),
    Damage.LOST_RUN: ("without a run, though in a state that has one: {}", "wrote the lost runs of {}", "write the lost runs of"),
    Damage.NO_STATE: ("standing in no state: {}", "put {} back in their states", "put back in their states"),
    Damage.MISPLACED: (
        "standing in another state than they say, or in two: {}",
        "took {} out of states that are not theirs",
        "take out of states that are not theirs",
    ),
    Damage.NOT_IN_LINE: ("said to be waiting, but not in line: {}", "put {} back in line", "put back in line"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """How a queue whose every job is examined is treated. away_ms: readers away for so long are found, and with repair forgotten.

    lost_jobs: what is left of jobs goes also where more of them are lost than stored. yes: nobody is asked.
    """

    repair: bool = False
    yes: bool = False
    away_ms: int | None = None
    lost_jobs: bool = False


@dataclass(frozen=True, slots=True)
class Mended:
    """What was mended of one kind. names: ids, or names of writers, workers and readers."""

    where: str
    damage: Damage
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """Say it to people."""
        return f"mended: {self.where}: {self._what()}"

    def _what(self) -> str:
        count = len(self.names)
        if self.damage is Damage.HOLES:
            return f"counted the holes of the line anew: {self.names[-1]}, not {self.names[0]}"
        if self.damage in _JOBS:
            return f"{_JOBS[self.damage][1].format(counted(count, 'job'))}: {some(self.names)}"
        if self.damage is Damage.READERS:
            return f"forgot {counted(count, 'durable reader')}: {some(self.names)}"
        return f"set the timers of {counted(count, 'record')} in `{self.damage}`: {some(self.names)}"

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        names = list(self.names[:_MOST_IDS])
        return {"where": self.where, "what": self.damage.value, "count": len(self.names), "names": names, "message": self._what()}


def treatment(*, every: bool, repair: bool, yes: bool, lost_jobs: bool, forget_readers: str | None) -> Treatment | None:
    """Return what the options order, None for a sample. Raises UsageError."""
    for option, is_said in (("--yes", yes), ("--lost-jobs", lost_jobs), ("--forget-readers", forget_readers is not None)):
        if is_said and not repair:
            raise UsageError(f"{option} says what --repair may do: give that, too, or leave it out")
    if not every and not repair:
        return None
    away_ms = None
    if forget_readers is not None:
        away_ms = to_ms("--forget-readers", parse_seconds("--forget-readers", forget_readers))
        if away_ms < READER_LIVE_MS:
            raise UsageError(f"--forget-readers {forget_readers}: must be 1d at least, a reader of the last day counts as live")
    return Treatment(repair=repair, yes=yes, away_ms=away_ms, lost_jobs=lost_jobs)


async def examine_all(runner: AsyncRunner, keys: QueueKeys, away_ms: int | None) -> Examined:
    """Examine everything of a queue; of a large one a bar tells how far it is."""
    total = await runner.run_verb(hash_size(keys, "jobs"))
    with progress(f"examining {keys.name}", total, per_call=CALL_JOBS) as show:
        found = await runner.perform(examine(keys, away_ms, show))
    if not found.wrong_types:
        with contextlib.suppress(ServerRefused, ScriptError):  # not permitted, or renamed
            found.strays = await runner.perform(examine_strays(keys))
    return found


def findings_of(keys: QueueKeys, found: Examined, *, repaired: bool) -> list[Finding]:
    """Return what was found, with what to do. repaired: mending was tried already."""
    name = keys.name
    if found.wrong_types:
        advice = "somebody else wrote here: RENAME the key away, then `eventq doctor --repair`; nothing else was examined"
        return [Finding(name, "keys", PROBLEM, each, advice) for each in found.wrong_types]
    again = "let it be mended again" if repaired else f"`eventq doctor {name} --repair` mends it"
    findings: list[Finding] = []
    for damage, names in found.damage.items():
        findings.append(_finding(name, damage, names, again, found))
    if found.ledger:
        message = f"the totals do not add up: {found.ledger}"
        advice = f"they are left as they are, since counters are compared with them; {_LOST}"
        findings.append(Finding(name, "totals", WARNING, message, advice))
    if found.strays is None:
        message = "whether there are some that no column of the queue has is not permitted to know (SCAN)"
        findings.append(Finding(name, "keys", UNKNOWN, message))
    elif found.strays:
        message = f"{counted(len(found.strays), 'key')} that no column of the queue has: {some(found.strays)}"
        findings.append(Finding(name, "keys", WARNING, message, "a newer eventq wrote them, or somebody else: see, then DEL"))
    if not found.damage:
        findings.append(Finding(name, "records", OK, f"all of {counted(found.stored, 'job')} looked at"))
    return findings


def _finding(name: str, damage: Damage, names: Sequence[str], again: str, found: Examined) -> Finding:
    if damage is Damage.UNREADABLE:
        message = f"{counted(len(names), 'record')} not readable: {some(names)}"
        return Finding(
            name, "records", PROBLEM, message, f"`eventq job {name} ID` shows it, `eventq remove {name} ID` takes it out"
        )
    if damage is Damage.ORPHAN_RUNNING:
        message = f"{counted(len(names), 'job')} not stored, but running: {some(names)}"
        return Finding(name, "orphans", PROBLEM, message, "left until the run ends; then let it be mended")
    if damage is Damage.HOLES:
        return Finding(name, "holes", PROBLEM, f"meta says {names[0]} holes in the line, there are {names[1]}", again)
    if damage is Damage.READERS:
        return Finding(name, "reader", WARNING, f"{counted(len(names), 'durable reader')} away for long: {some(names)}", again)
    if damage in (Damage.CALLS, Damage.WORKERS):
        return Finding(name, damage.value, WARNING, f"{counted(len(names), 'record')} without a timer: {some(names)}", again)
    message = f"{counted(len(names), 'job')} {_JOBS[damage][0].format(some(names))}"
    if damage is Damage.ORPHAN and found.is_mostly_lost:
        again = (
            f"more than the {number(found.stored)} that are stored: put a backup back, or give them up: --repair --lost-jobs "
            "removes what is left of them"
        )
    return Finding(name, "orphans" if damage is Damage.ORPHAN else "stuck", PROBLEM, message, again)


async def repair_queue(runner: AsyncRunner, keys: QueueKeys, treatment: Treatment) -> list[Mended]:
    """Examine and mend until there is nothing to mend; return what was mended."""
    mended: dict[Damage, list[str]] = {}
    for _ in range(_ROUNDS):
        found = await examine_all(runner, keys, treatment.away_ms)
        if not found.mendable(lost_jobs=treatment.lost_jobs):
            break
        steps = mend(keys, found, away_ms=treatment.away_ms or 0, lost_jobs=treatment.lost_jobs)
        done = await runner.perform(steps)
        for damage, names in done.items():
            mended[damage] = [*mended.get(damage, []), *names]
    return [Mended(keys.name, damage, tuple(names)) for damage, names in mended.items()]


def plan_of(found: Examined, *, lost_jobs: bool) -> str:
    """Say what a repair would set out to mend, '' for nothing."""
    mendable = found.mendable(lost_jobs=lost_jobs)
    return ", ".join(_planned(damage, names) for damage, names in mendable.items())


def _planned(damage: Damage, names: Sequence[str]) -> str:
    if damage is Damage.HOLES:
        return "count the holes of the line"
    if damage is Damage.READERS:
        return f"forget {counted(len(names), 'durable reader')}"
    if damage in _JOBS:
        return f"{_JOBS[damage][2]} {counted(len(names), 'job')}"
    return f"set the timers of {counted(len(names), 'record')} in `{damage}`"
