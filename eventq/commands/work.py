"""What a worker sends: outcomes and claims, releases, renewals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from eventq.commands.core import Command, indexes
from eventq.errors import ScriptError
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys


@dataclass(frozen=True, slots=True)
class Retention:
    """The queue's own rules: how many finished jobs stay, and for how long (ms); -1 is no such rule."""

    completed: tuple[int, int]
    failed: tuple[int, int]

    @property
    def words(self) -> tuple[int, int, int, int]:
        """Return the rules as arguments."""
        return (*self.completed, *self.failed)


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What one run came to. word: completed, failed, exhausted, retry. extra: retention rule, or delay in ms for retry."""

    job_id: str
    token: str
    word: str
    fragment: str
    body: str
    extra: str | int


class ProgressUpdate(msgspec.Struct, frozen=True, gc=False):
    """Progress of one running job; `value` is JSON."""

    job_id: str
    token: str
    fragment: str
    value: str


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """One job as claimed: its texts, the token of this run, its fence, and when it started (ms, Redis' clock)."""

    id: str
    token: str
    record: str
    run: str
    apart: str
    fence: int
    started_ms: int


class ClaimReply(msgspec.Struct, frozen=True, gc=False):
    """`stale`: indexes of outcomes that were refused. `next_due_ms`: until the next delayed job is due, None for none."""

    now_ms: int
    stale: list[int]
    next_due_ms: int | None
    jobs: list[Claimed]


def settle_and_claim(
    keys: QueueKeys,
    *,
    worker: str,
    lease_ms: int,
    wanted: int,
    retention: Retention,
    progress: Sequence[ProgressUpdate],
    outcomes: Sequence[Outcome],
    max_stalls: int = 0,
    may_risk: bool = True,
) -> Command[ClaimReply]:
    """Record at most 100 outcomes and claim at most 100 jobs.

    max_stalls: a job with so many is on its last chance; at most one of them is claimed, none unless `may_risk`. 0: no such rule.
    """
    script = load_script("settle_and_claim")
    args: list[str | int] = [worker, lease_ms, wanted, *retention.words, len(progress), len(outcomes)]
    args += (max_stalls, "1" if may_risk else "0")
    for update in progress:
        args += (update.job_id, update.token, update.fragment, update.value)
    for outcome in outcomes:
        args += (outcome.job_id, outcome.token, outcome.word, outcome.fragment, outcome.body, outcome.extra)
    return Command(script, script.keys(keys), args, _parse_claim)


def _parse_claim(reply: list[Any]) -> ClaimReply:
    now, fence, due, stale, token = reply[1:6]
    if len(reply) % 3:
        raise ScriptError(f"script settle_and_claim: a reply of {len(reply)} items")
    jobs: list[Claimed] = []
    for index, at in enumerate(range(6, len(reply), 3)):
        record = reply[at + 1]
        if record:
            run, _, apart = reply[at + 2].partition("\n")
            jobs.append(Claimed(reply[at], f"{token}{index}", record, run, apart, fence + index, now))
    return ClaimReply(now, indexes(stale) if stale else [], None if due < 0 else due, jobs)


class Held(msgspec.Struct, frozen=True, gc=False):
    """A running job as its worker names it."""

    job_id: str
    token: str
    fragment: str = ""


def release_jobs(keys: QueueKeys, jobs: Sequence[Held]) -> Command[int]:
    """Give at most 500 running jobs back to the head of the line. Returns how many were still ours."""
    script = load_script("release_jobs")
    args: list[str | int] = [len(jobs)]
    for job in jobs:
        args += (job.job_id, job.token, job.fragment)
    return Command(script, script.keys(keys), args, lambda reply: int(reply[1]))


def renew_leases(keys: QueueKeys, lease_ms: int, jobs: Sequence[Held]) -> Command[list[int]]:
    """Renew the leases of at most 500 jobs. Returns the indexes of those that are lost."""
    script = load_script("renew_leases")
    args: list[str | int] = [lease_ms, len(jobs)]
    for job in jobs:
        args += (job.job_id, job.token)
    return Command(script, script.keys(keys), args, lambda reply: indexes(reply[1]))
