"""Lanes: outcomes go out and jobs come in, a batch of each per call, one call in flight per lane.

While a call is in flight, whatever finishes is collected; the next call settles all of it and claims for the free slots. A
worker with many slots runs two lanes, so that one lane's script runs on the server while the other's jobs run here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.client import AsyncRunner
from eventq.commands.work import ClaimReply, Outcome, ProgressUpdate, settle_and_claim
from eventq.limits import BATCH_JOBS, CALL_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventq.context import QueueContext
    from eventq.outcome import Verdict
    from eventq.running import Running

#: From so many slots on, a worker runs two lanes (measured: two are 1.5 to 2 times one, four are worse).
TWO_LANES_FROM: Final = 16


class Settlement(msgspec.Struct, frozen=True):
    """An outcome on its way, with the run it belongs to."""

    running: Running
    outcome: Outcome
    verdict: Verdict


class Lanes:
    """The calls of one worker.

    slots: how many jobs the worker may run, free: how many more it could run now. may_risk: whether it could run a job that
    `max_stalls` stalls have brought to its last chance. replied: told each reply with the settlements
    it answers and the boot time at which its call was sent; starts the claimed jobs. failed: told what no repeating mends; that
    lane has ended.
    """

    def __init__(
        self,
        context: QueueContext[Any, Any],
        *,
        worker: str,
        lease_ms: int,
        concurrency: int,
        slots: Callable[[], int],
        free: Callable[[], int],
        max_stalls: int,
        may_risk: Callable[[], bool],
        replied: Callable[[Sequence[Settlement], ClaimReply, float], None],
        failed: Callable[[Exception], None],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._context = context
        self._worker = worker
        self._lease_ms = lease_ms
        self._slots = slots
        self._free = free
        self._max_stalls = max_stalls
        self._may_risk = may_risk
        #: Whether a call in flight may bring a job on its last chance.
        self._risks = False
        self._replied = replied
        self._failed = failed
        count = 2 if concurrency >= TWO_LANES_FROM else 1
        self._runners = [
            AsyncRunner(context.server, patience=None, client_name="eventq-worker", on_fault=on_fault) for _ in range(count)
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._idle: deque[asyncio.Future[None]] = deque()
        self._outcomes: deque[Settlement] = deque()
        self._progress: dict[str, ProgressUpdate] = {}
        #: Runs whose progress is in flight, and the outcomes that must not overtake it.
        self._reporting: set[str] = set()
        self._held_back: dict[str, Settlement] = {}
        self._asked = 0
        self._flying = 0
        self._hungry = False
        self._looks = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        #: Off while the worker is paused or closing: outcomes go out, nothing comes in.
        self.claiming = True

    def start(self) -> None:
        """Begin."""
        for number, runner in enumerate(self._runners):
            self._tasks.append(asyncio.create_task(self._run(runner), name=f"eventq-lane {self._worker} {number}"))

    def settle(self, settlement: Settlement) -> None:
        """Send an outcome with the next call."""
        if settlement.outcome.token in self._reporting:
            self._held_back[settlement.outcome.token] = settlement
            return
        self._outcomes.append(settlement)
        if not self._flying or len(self._outcomes) >= self._worthwhile():
            self._kick()

    def report(self, update: ProgressUpdate) -> None:
        """Send progress with the next call; the latest of a run wins."""
        self._progress[update.token] = update
        self._kick()

    def look(self) -> None:
        """There may be work: claim for the free slots."""
        self._hungry = True
        self._looks += 1
        self._kick()

    @property
    def is_quiet(self) -> bool:
        """Nothing to send, nothing in flight, no reason to look."""
        return not (self._outcomes or self._progress or self._flying or (self._hungry and self.claiming))

    async def flush(self) -> None:
        """Return when every outcome is recorded and no call is in flight."""
        while self._outcomes or self._progress or self._flying:
            self._kick()
            self._quiet.clear()
            await self._quiet.wait()

    async def close(self) -> None:
        """Stop the calls; what was not sent is not sent."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for runner in self._runners:
            await runner.close()

    def _worthwhile(self) -> int:
        """How many jobs make a second call in flight worth its cost: a lane's fair share of the slots.

        Fewer wait for the other lane's reply, which takes them along: else three small groups of jobs go round instead of two.
        """
        return min(BATCH_JOBS, max(1, self._slots() // len(self._runners)))

    def _kick(self) -> None:
        while self._idle:
            future = self._idle.popleft()
            if not future.done():
                future.set_result(None)
                return

    async def _run(self, runner: AsyncRunner) -> None:
        loop = asyncio.get_running_loop()
        while True:
            outcomes, progress, wanted = self._batch()
            if not outcomes and not progress and not wanted:
                self._quiet.set()
                future = loop.create_future()
                self._idle.append(future)
                await future
                continue
            looks = self._looks
            reporting = self._hold_back(progress, outcomes) if progress else set[str]()
            self._asked += wanted
            self._flying += 1
            risks = wanted > 0 and not self._risks and self._may_risk()
            self._risks = self._risks or risks
            try:
                reply = await runner.run(self._command(outcomes, progress, wanted, risks))
            except Exception as error:  # what the runner does not repeat: another layout, no permission, a bug of ours
                self._failed(error)
                return
            finally:
                self._let_go(reporting)
                self._asked -= wanted
                self._flying -= 1
                self._risks = self._risks and not risks
                self._quiet.set()
            if wanted and len(reply.jobs) == wanted:
                self._hungry = True
            elif wanted and looks == self._looks:
                self._hungry = False
            self._replied(outcomes, reply, runner.sent)
            if reply.jobs:
                # Jobs that end at once end now, and go out together.
                await asyncio.sleep(0)

    def _batch(self) -> tuple[list[Settlement], list[ProgressUpdate], int]:
        outcomes: list[Settlement] = []
        free = self._free() - self._asked if self.claiming else 0
        if self._flying and max(len(self._outcomes), free if self._hungry else 0) < self._worthwhile():
            return [], [], 0
        size = 0
        # An even part each: lanes that took whatever there is would go round with 90 jobs and 10.
        most = min(BATCH_JOBS, max(self._worthwhile(), -(-len(self._outcomes) // len(self._runners))))
        while self._outcomes and len(outcomes) < most:
            size += len(self._outcomes[0].outcome.body) + 256
            if outcomes and size > CALL_BYTES:
                break
            outcomes.append(self._outcomes.popleft())
        progress = self._next_progress(outcomes) if self._progress else []
        wanted = 0
        if self._hungry or outcomes:
            # Half of all slots per lane, so that the other lane has jobs to run while this one's call is away.
            share = -(-(free + self._asked) // len(self._runners)) if not self._asked else free
            wanted = max(0, min(share, free, BATCH_JOBS))
            if self._outcomes or (self._hungry and free > wanted):
                self._kick()
        return outcomes, progress, wanted

    def _next_progress(self, outcomes: Sequence[Settlement]) -> list[ProgressUpdate]:
        """Return what goes out with these outcomes: theirs first, as it is refused once they are in."""
        tokens = dict.fromkeys(token for each in outcomes if (token := each.outcome.token) in self._progress)
        for token in self._progress:
            if len(tokens) >= BATCH_JOBS:
                break
            if token not in self._reporting:  # a later value must not overtake an earlier one either
                tokens.setdefault(token)
        return [self._progress.pop(token) for token in tokens]

    def _hold_back(self, progress: Sequence[ProgressUpdate], outcomes: Sequence[Settlement]) -> set[str]:
        """Keep the outcomes of runs whose progress goes out now from going by the other lane; return these runs."""
        tokens = {update.token for update in progress} - {each.outcome.token for each in outcomes}
        self._reporting |= tokens
        for each in [each for each in self._outcomes if each.outcome.token in tokens]:
            self._outcomes.remove(each)
            self._held_back[each.outcome.token] = each
        return tokens

    def _let_go(self, tokens: set[str]) -> None:
        self._reporting -= tokens
        self._outcomes.extend(self._held_back.pop(token) for token in tokens & self._held_back.keys())

    def _command(self, outcomes: Sequence[Settlement], progress: Sequence[ProgressUpdate], wanted: int, risks: bool) -> Any:
        return settle_and_claim(
            self._context.keys,
            worker=self._worker,
            lease_ms=self._lease_ms,
            wanted=wanted,
            retention=self._context.retention,
            progress=progress,
            outcomes=[settlement.outcome for settlement in outcomes],
            max_stalls=self._max_stalls,
            may_risk=risks,
        )
