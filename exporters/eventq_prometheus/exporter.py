"""PrometheusExporter: follows the events of queues, counts, and answers scrapes with nothing that is not saved."""

from __future__ import annotations

import asyncio
import logging
import math
import platform
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from eventq import ConfigurationError, EventqError, Follower, __version__
from eventq.opened import Opened
from eventq_prometheus.tally import MOST_NAMES, Tally
from eventq_prometheus.timing import Timing, Warnings
from eventq_prometheus.views import QueueView, Sheet, series_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import timedelta
    from typing import Self

    from prometheus_client.core import Metric

    from eventq import EventBatch, QueueState
    from eventq.events import LostEvent
    from eventq_prometheus.saved import Saved

__all__ = ["BUDGET", "CONSUMER", "PrometheusExporter"]

log: Final = logging.getLogger("eventq.exporter")

#: The name under which positions and counters are saved.
CONSUMER: Final = "prometheus"
#: Seconds that one scrape may spend on Redis, and the part of it after which Redis counts as away.
BUDGET: Final = 5.0
_PING_SHARE: Final = 0.4
_LOOK_SHARE: Final = 0.9
#: Queues that are gone and still shown, the latest ones.
MOST_GONE: Final = 100
#: Seconds between two comparisons of what was counted with what the queues counted, and after a loss.
_COMPARE_EVERY: Final = 10.0
_COMPARE_SOON: Final = 0.2
#: Seconds without an answer to a read after which the exporter is not ready.
_SILENT: Final = 30.0


@dataclass(slots=True)
class _Part:
    """How a part of a scrape went."""

    seconds: float = 0.0
    is_done: bool = False


class PrometheusExporter(Opened, Collector):
    """Counts what the events of queues say and shows it to Prometheus.

    queues: only these; else all of the server, new ones too. consumer: the name its place and counters are saved under; a second
    process with the same name stands by, one with another name counts the same again. histograms_by_name: histograms for each job
    name too, some 90 series a name. per_worker: series for each worker. registry: where it registers itself as a collector; else
    `registry` is one of its own.

    `async with`, or `open` and `close`. Place and counters are saved in one write, and no scrape shows what is not saved: after
    `kill -9` the next process goes on exactly there, and no counter ever falls. Redis away: the last saved counters are shown,
    with eventq_up 0. A scrape costs two round trips a queue.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        prefix: str = "eventq",
        queues: Sequence[str] | None = None,
        consumer: str = CONSUMER,
        histograms_by_name: bool = False,
        per_worker: bool = False,
        registry: CollectorRegistry | None = None,
        hold: float | timedelta = 10.0,
    ) -> None:
        """Name it; nothing is opened yet. Raises ConfigurationError naming option and value."""
        self._follower = Follower(consumer, self, url=url, prefix=prefix, queues=queues, hold=hold, on_fault=self._on_fault)
        self._by_name = histograms_by_name
        self._per_worker = per_worker
        self._tallies: dict[str, Tally] = {}
        #: What was handed out to be saved, and what is saved: only that is shown.
        self._handed: dict[str, Saved] = {}
        self._shown: dict[str, QueueView] = {}
        self._overflows: dict[str, int] = dict.fromkeys(("job_name", "error_type", "scheduler", "event"), 0)
        self._timing = Timing()
        self._parts = {"save": _Part(), "queues": _Part()}
        self._up = False
        self._ping_seconds = math.nan
        self._checkpoint = 0.0
        self._warnings = Warnings(log)
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._soon = asyncio.Event()
        self.registry = registry if registry is not None else CollectorRegistry()
        self.registry.register(self)

    # -- life

    async def open(self) -> Self:
        """Connect and begin. Raises QueueUnavailable, ServerRefused or ConfigurationError: away, refused, too old."""
        self._loop = asyncio.get_running_loop()
        await self._follower.open()
        self._comparing = asyncio.create_task(self._keep_comparing(), name="eventq-exporter compare")
        return self

    async def close(self) -> None:
        """Save where it is, give the name up, close the connections. Safe to call twice."""
        comparing, self._comparing = self._comparing, None
        if comparing is not None:
            comparing.cancel()
            await asyncio.wait([comparing])
        await self._follower.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it was opened on. Raises ConfigurationError before that."""
        if self._loop is None:
            raise ConfigurationError("the exporter is not open yet")
        return self._loop

    @property
    def where(self) -> str:
        """The server, without user and password."""
        return self._follower.where

    @property
    def failure(self) -> BaseException | None:
        """What it stopped with, if nothing mends it."""
        return self._follower.failure

    @property
    def series(self) -> tuple[int, int]:
        """About how many series there are now, and how many there can be at most with the queues of now."""
        per_queue, per_name = series_of(self._by_name)
        names = sum(tally.names for tally in self._tallies.values())
        queues = len(self._tallies)
        return queues * per_queue + names * per_name, queues * (per_queue + MOST_NAMES * per_name)

    def status(self) -> tuple[bool, str]:
        """Return whether it is ready, and how it is, in a line per fact: last read, lag, what is missing."""
        now = asyncio.get_running_loop().time()
        follower = self._follower
        silent = now - follower.read_at if follower.read_at else 0.0
        catching_up = sorted(name for name, tally in self._tallies.items() if not tally.is_based)
        lines = [
            "standing by" if not follower.is_leading else f"following {len(follower.queues)} queues",
            f"last read answered {silent:.1f} s ago",
        ]
        lags = [state.seq - view.handled for view in self._shown.values() if (state := view.state) is not None]
        lines.append(f"lag {max(0, max(lags, default=0))} events at the last scrape")
        lines += [f"catching up: {', '.join(catching_up[:10])}"] if catching_up else []
        lines += [f"waiting for {', '.join(sorted(follower.missing))}"] if follower.missing else []
        is_ready = self.failure is None and silent < _SILENT and not catching_up
        return is_ready, "\n".join([*lines, "ready" if is_ready else "not ready"])

    async def caught_up(self, timeout: float) -> bool:
        """Wait until every queue was compared once, at most so many seconds; return whether it was."""
        deadline = time.monotonic() + timeout
        while not all(tally.is_based for tally in self._tallies.values()):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.02)
        return True

    # -- scraping

    async def refresh(self, budget: float = BUDGET) -> None:
        """Read how every queue is and save every counter, in so many seconds at most; what is not in time stays as it was."""
        deadline = time.monotonic() + budget
        try:
            async with asyncio.timeout(budget), self._lock:
                await self._ask(deadline)
        except TimeoutError:  # the parts say which of them were not done
            return

    async def _ask(self, deadline: float) -> None:
        self._up = False
        for part in self._parts.values():
            part.is_done, part.seconds = False, 0.0
        self._shown = {name: QueueView(view.saved, view.spreads) for name, view in self._shown.items()}
        try:
            async with asyncio.timeout(max(0.1, (deadline - time.monotonic()) * _PING_SHARE)):
                began = time.perf_counter()
                with self._timing.of("ping"):
                    await self._follower.ping()
            self._ping_seconds, self._up = time.perf_counter() - began, True
        except (TimeoutError, EventqError):
            return
        names = set(self._follower.queues)
        done: dict[str, set[str]] = {"queues": set(), "save": set()}
        try:
            async with asyncio.timeout(max(0.1, (deadline - time.monotonic()) * _LOOK_SHARE)):
                await self._follower.for_each(lambda name: self._look(name, done))
        finally:
            for name, part in self._parts.items():
                part.is_done = done[name] >= names

    async def _look(self, name: str, done: dict[str, set[str]]) -> None:
        """Read how a queue is, and save what is counted of it."""
        began = time.perf_counter()
        state = await self._observe(name)
        view, followed = self._shown.get(name), self._follower.queues.get(name)
        if state is not None and view is not None and followed is not None:
            self._shown[name] = QueueView(view.saved, view.spreads, state, followed.seq)
            done["queues"].add(name)
        self._parts["queues"].seconds += time.perf_counter() - began
        began = time.perf_counter()
        try:
            with self._timing.of("save"):
                await self._follower.save(name)
            done["save"].add(name)
        except EventqError as error:  # Redis takes no writes: what was saved before is shown
            self._warnings.say(f"queue {name}: nothing can be saved: {error}")
        self._parts["save"].seconds += time.perf_counter() - began

    async def _observe(self, name: str) -> QueueState | None:
        """Read how a queue is, and compare; None for one that was given up or cannot be read."""
        try:
            with self._timing.of("observe"):
                state = await self._follower.observe(name)
        except (KeyError, EventqError) as error:
            log.debug("queue %s was not observed: %s", name, error)
            return None
        tally, followed = self._tallies.get(name), self._follower.queues.get(name)
        if tally is not None and followed is not None and followed.epoch == state.epoch:
            tally.compare(state)
            tally.busy(state.busy_ms)
        return state

    def sheet(self, *, zeroes: bool) -> Sheet:
        """Return what there is to show. zeroes: series that no scrape has seen are shown at 0; see `seen`."""
        sheet = Sheet(zeroes=zeroes, per_worker=self._per_worker, by_name=self._by_name)
        # Whoever stands by shows no queue, or it would be added up with what the other process shows.
        for name in sorted(self._shown) if self._follower.is_leading else ():
            sheet.queue(name, self._shown[name])
        self._own(sheet)
        return sheet

    def seen(self, sheet: Sheet) -> None:
        """A scrape has seen this sheet: what it showed at 0 is shown as it is from now on, and that is saved."""
        for name, groups in sheet.unborn.items():
            if name in self._tallies:
                self._tallies[name].bear(groups)

    def collect(self) -> Iterable[Metric]:
        """Return the families, for a registry of your own: after a refresh, but for a call on the exporter's own loop."""
        loop = self._loop
        if loop is not None and loop.is_running() and not _is_here(loop):
            asyncio.run_coroutine_threadsafe(self.refresh(), loop).result(BUDGET + 1)
        return self.sheet(zeroes=False).families()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there will be is not known, and registering must ask nobody."""
        return []

    def _own(self, sheet: Sheet) -> None:
        follower = self._follower
        sheet.set("eventq_up", float(self._up))
        sheet.set("eventq_exporter_leader", float(follower.is_leading))
        sheet.set("eventq_exporter_queues", len(follower.queues))
        sheet.set("eventq_redis_reconnects_total", follower.reconnects)
        if not math.isnan(self._ping_seconds):
            sheet.set("eventq_redis_ping_seconds", self._ping_seconds)
        if self._checkpoint:
            sheet.set("eventq_checkpoint_timestamp_seconds", self._checkpoint)
        for label, n in self._overflows.items():
            sheet.set("eventq_label_overflow_total", n, label)
        for command, live in sorted(self._timing.spreads.items()):
            sheet.histogram("eventq_redis_command_duration_seconds", [command], live.spread, scale=1_000_000)
        for name, part in self._parts.items():
            sheet.set("eventq_scrape_duration_seconds", part.seconds, name)
            sheet.set("eventq_scrape_collector_success", float(part.is_done), name)
        kind, version = follower.server
        facts = {"version": __version__, "python": platform.python_version(), "server": kind, "server_version": version}
        sheet.info("eventq_build_info", facts)

    # -- what the follower tells

    async def restored(self, queue: str, state: str) -> None:
        """Take up what was saved."""
        if not state and queue in self._shown:
            # It was gone for so long that Redis forgot what was saved: it goes on from what was shown last.
            state = self._shown.pop(queue).saved.text
        tally = Tally(queue, state, by_name=self._by_name, overflowed=self._overflowed)
        self._tallies[queue] = tally
        tally.seq = self._follower.queues[queue].seq
        saved = tally.freeze()
        self._shown[queue] = QueueView(saved, tally.examples())
        self._soon.set()

    def received(self, batch: EventBatch) -> None:
        """Count a batch."""
        self._tallies[batch.queue].received(batch)

    def lost(self, event: LostEvent) -> None:
        """Count a loss, and let what the queue counted mend it soon."""
        log.warning(
            "queue %s: %d events are lost (%s), %d undone: totals are mended, histograms lack them",
            event.queue, event.count, event.reason, event.undone,
        )  # fmt: skip
        self._tallies[event.queue].lost(event)
        self._soon.set()

    async def flush(self) -> None:
        """Nothing: what is counted is kept with the place, in one write."""

    def state(self, queue: str) -> str:
        """Return what is to be saved."""
        self._handed[queue] = saved = self._tallies[queue].freeze()
        return saved.text

    def saved(self, queue: str) -> None:
        """What was handed out is saved: it may be shown."""
        view = self._shown.get(queue)
        state, handled = (view.state, view.handled) if view is not None else (None, 0)
        self._shown[queue] = QueueView(self._handed.pop(queue), self._tallies[queue].examples(), state, handled)
        self._checkpoint = time.time()

    def left(self, queue: str) -> None:
        """Another process has the queue, or it is gone: what was counted of one that is gone is still shown."""
        self._tallies.pop(queue, None)
        self._handed.pop(queue, None)
        if not self._follower.is_leading:
            self._shown.pop(queue, None)
        gone = [name for name in self._shown if name not in self._tallies]
        for name in gone[:-MOST_GONE]:
            del self._shown[name]

    # -- comparing

    async def _keep_comparing(self) -> None:
        """Compare what was counted with what the queues counted: at first, after a loss, and now and then."""
        while True:
            for name in list(self._follower.queues):
                try:
                    await self._observe(name)
                except Exception:  # one queue whose numbers cannot be read keeps nobody from the others
                    log.exception("queue %s cannot be compared", name)
            pause = _COMPARE_EVERY if all(tally.is_based for tally in self._tallies.values()) else _COMPARE_SOON
            self._soon.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._soon.wait()
                await asyncio.sleep(_COMPARE_SOON)
            except TimeoutError:
                continue

    def _overflowed(self, label: str) -> None:
        self._overflows[label] += 1

    def _on_fault(self, error: Exception) -> None:
        self._warnings.say(f"{self.where}: {error}")


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
