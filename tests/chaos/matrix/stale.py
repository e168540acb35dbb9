"""Tokens of runs that are over, offered again in every way there is: not one of them may be taken."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner
from eventq.commands.manage import add_log, update_data
from eventq.commands.work import Held, Outcome, ProgressUpdate, release_jobs, renew_leases, settle_and_claim
from eventq.outcome import identity

if TYPE_CHECKING:
    import random

    from eventq import Job, Queue

    from ..ledger import Ledger

#: So many at once, and seconds between.
MOST: Final = 10
PAUSE: Final = 0.2
WORDS: Final = (("completed", ""), ("retry", 0), ("postpone", 0), ("failed", ""), ("exhausted", ""))


class Forger:
    """Keeps the tokens of a worker's runs; once the verdict on a run is known its token is spent, and is offered again."""

    def __init__(self, queue: Queue[Any, Any], ledger: Ledger) -> None:
        self._queue = queue
        self._ledger = ledger
        self._held: dict[tuple[str, int], str] = {}
        self._spent: deque[Held] = deque(maxlen=500)

    def remember(self, job: Job[Any, Any]) -> None:
        """Keep the token of a run that begins."""
        self._held[job.id, job.attempt] = job._token

    def is_spent(self, event: Any) -> None:
        """Take note that the outcome of a run was recorded: nobody may use its token any more."""
        token = self._held.pop((event.job_id, event.attempt), None)
        if token is not None:
            self._spent.append(Held(event.job_id, token, identity(event.name, event.attempt, "forger")))

    async def forge(self, chance: random.Random) -> None:
        """Offer spent tokens for ever."""
        runner = AsyncRunner(self._queue.context.server, patience=None)
        try:
            while True:
                await asyncio.sleep(PAUSE)  # sleep-ok: the pace of it
                if self._spent:
                    await self._offer(runner, chance.sample(self._spent, min(MOST, len(self._spent))), chance)
        finally:
            await runner.close()

    async def _offer(self, runner: AsyncRunner, stale: list[Held], chance: random.Random) -> None:
        context = self._queue.context
        keys = context.keys
        word, extra = chance.choice(WORDS)
        reply = await runner.run(
            settle_and_claim(
                keys,
                worker="forger",
                lease_ms=60_000,
                wanted=0,
                retention=context.retention,
                progress=[ProgressUpdate(one.job_id, one.token, one.fragment, "42") for one in stale],
                outcomes=[Outcome(one.job_id, one.token, word, one.fragment, '"forged"', extra) for one in stale],
            )
        )
        self._tell(word, stale, set(range(len(stale))) - set(reply.stale))
        lost = await runner.run(renew_leases(keys, 60_000, stale))
        self._tell("renew", stale, set(range(len(stale))) - set(lost))
        released = await runner.run(release_jobs(keys, stale))
        self._tell("release", stale, set(range(released)))
        one = chance.choice(stale)
        self._tell("update", [one], {0} if "u" in await runner.run(update_data(keys, one.job_id, one.token, "666")) else set())
        self._tell("log", [one], {0} if "u" in await runner.run(add_log(keys, one.job_id, one.token, '"forged"')) else set())

    def _tell(self, what: str, stale: list[Held], accepted: set[int]) -> None:
        for index, one in enumerate(stale):
            self._ledger.stale_write(what, one.job_id, accepted=index in accepted)
