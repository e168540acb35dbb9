"""`eventq doctor --all` and `--repair`: everything of a queue examined, in words, and what was mended of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.findings import OK, PROBLEM, WARNING, Finding, some
from eventq.cli.text import counted, number, plain
from eventq.operations.examining import Damage, Examined, examine
from eventq.operations.repairing import mend

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from eventq.client import AsyncRunner
    from eventq.keys import QueueKeys

__all__ = ["Mended", "examine_all", "findings_of", "repair_queue"]

#: Rounds of examining and mending: what the first finds may hide something from it, and a queue at work goes on.
_ROUNDS: Final = 4
#: Ids in JSON.
_MOST_IDS: Final = 1000
_LOST: Final = "the server lost writes, or somebody else wrote here"
#: Damage -> what is found of so many jobs, what was done about it.
_JOBS: Final = {
    Damage.ORPHAN: ("not stored, but something is left of {}", "removed what was left of {} not stored"),
    Damage.NO_LEASE: ("said to be active, but without a lease: {}", "gave {} without a lease back, as stalled"),
    Damage.LOST_RUN: ("without a run, though in a state that has one: {}", "wrote the lost runs of {}"),
    Damage.NO_STATE: ("standing in no state: {}", "put {} back in the state of theirs"),
    Damage.MISPLACED: ("standing in another state than they say, or in two: {}", "took {} out of states that are not theirs"),
    Damage.NOT_IN_LINE: ("said to be waiting, but not in line: {}", "put {} back in line"),
}


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


async def examine_all(
    runner: AsyncRunner, keys: QueueKeys, away_ms: int | None, on_progress: Callable[[int], None] | None = None
) -> Examined:
    """Examine everything of a queue."""
    return await runner.perform(examine(keys, away_ms, on_progress))


def findings_of(keys: QueueKeys, found: Examined, *, repaired: bool = False) -> list[Finding]:
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
    if found.strays:
        message = f"{counted(len(found.strays), 'key')} that no column of the queue has: {some(found.strays)}"
        findings.append(Finding(name, "keys", WARNING, message, "a newer eventq wrote them, or somebody else: see, then DEL"))
    if not found.damage:
        findings.append(Finding(name, "records", OK, f"all of {counted(found.stored, 'job')} looked at"))
    return findings


def _finding(name: str, damage: Damage, names: Sequence[str], again: str, found: Examined) -> Finding:
    if damage is Damage.UNREADABLE:
        message = f"{counted(len(names), 'record')} not readable: {some(names)}"
        return Finding(name, "records", PROBLEM, message, f"`eventq job {name} ID` shows it, `eventq remove {name} ID` takes it out")
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


async def repair_queue(
    runner: AsyncRunner, keys: QueueKeys, *, away_ms: int | None, lost_jobs: bool
) -> tuple[list[Mended], Examined]:
    """Examine and mend until there is nothing to mend. Returns what was mended, and what was found last."""
    mended: dict[Damage, list[str]] = {}
    found = await examine_all(runner, keys, away_ms)
    for _ in range(_ROUNDS):
        done: Mapping[Damage, list[str]] = {}
        if found.mendable:
            done = await runner.perform(mend(keys, found, away_ms=away_ms or 0, lost_jobs=lost_jobs))
        if not done:
            break
        for damage, names in done.items():
            mended[damage] = [*mended.get(damage, []), *names]
        found = await examine_all(runner, keys, away_ms)
    return [Mended(keys.name, damage, tuple(dict.fromkeys(names))) for damage, names in mended.items()], found


def describe(found: Sequence[tuple[str, Examined]]) -> str:
    """Say in one sentence what a repair would set out to mend."""
    parts = [
        f"{plain(name)}: {', '.join(f'{damage.value} {number(len(names))}' for damage, names in each.mendable.items())}"
        for name, each in found
        if each.mendable
    ]
    return "; ".join(parts)
