"""Mending what an examination found. Every call is one script of 250 names at most; it looks again, changes what is still so."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.commands.repair import repair_jobs, repair_line, repair_upkeep
from eventq.limits import SLICE_JOBS
from eventq.operations.examining import LETTERS, OF_JOBS, Damage

if TYPE_CHECKING:
    from collections.abc import Generator

    from eventq.commands.core import Command, Steps, Verb
    from eventq.commands.repair import Look
    from eventq.keys import QueueKeys
    from eventq.operations.examining import Examined

_UPKEEP: Final = {Damage.CALLS: ("calls", "t"), Damage.WORKERS: ("workers", "t"), Damage.READERS: ("consumers", "r")}


def mend(keys: QueueKeys, found: Examined, *, away_ms: int = 0, lost_jobs: bool = False) -> Steps[dict[Damage, list[str]]]:
    """Mend; return what was mended, by damage. lost_jobs: take out orphans even where there are more of them than stored jobs."""
    mended: dict[Damage, list[str]] = {}
    wanted = found.mendable(lost_jobs=lost_jobs)
    ids = list(dict.fromkeys(name for damage in OF_JOBS for name in wanted.get(damage, ())))
    for in_line in (False, True):
        chosen = [job_id for job_id in ids if (job_id in found.in_line) is in_line]
        for start in range(0, len(chosen), SLICE_JOBS):
            some = chosen[start : start + SLICE_JOBS]
            letters = yield repair_jobs(keys, some, in_line=in_line)
            for job_id, letter in zip(some, letters, strict=True):
                if LETTERS.get(letter) in OF_JOBS:
                    mended.setdefault(LETTERS[letter], []).append(job_id)
    yield from _mend_line(keys, found, mended)
    for damage, (column, done) in _UPKEEP.items():
        names = found.damage.get(damage, [])
        for start in range(0, len(names), SLICE_JOBS):
            some = names[start : start + SLICE_JOBS]
            letters = yield repair_upkeep(keys, column, some, away_ms=away_ms)
            if changed := [name for name, letter in zip(some, letters, strict=True) if letter == done]:
                mended.setdefault(damage, []).extend(changed)
    return mended


def _mend_line(
    keys: QueueKeys, found: Examined, mended: dict[Damage, list[str]]
) -> Generator[Command[Any] | Verb[Any], Any, None]:
    """Put lost jobs back: the last slice first, since each goes to the head."""
    starts = list(range(0, len(found.lost), SLICE_JOBS)) or ([0] if Damage.HOLES in found.damage else [])
    for start in reversed(starts):
        some = found.lost[start : start + SLICE_JOBS]
        look: Look = yield repair_line(keys, some, recount=found.may_recount)
        if back := [job_id for (job_id, _), letter in zip(some, look.letters, strict=True) if letter == "p"]:
            mended[Damage.NOT_IN_LINE] = [*back, *mended.get(Damage.NOT_IN_LINE, ())]
        if look.said != look.holes:
            mended[Damage.HOLES] = [*mended.get(Damage.HOLES, [look.said])[:1], look.holes]
