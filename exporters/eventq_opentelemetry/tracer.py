"""StreamTracer: spans of every job, made from the event streams of queues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import TracerProvider

from eventq import ConfigurationError, EventBatch, EventqError, Follower
from eventq.opened import Opened
from eventq.spans import scope_of
from eventq_opentelemetry import names
from eventq_opentelemetry.building import Style
from eventq_opentelemetry.delivery import Delivery
from eventq_opentelemetry.metrics import Doing, Metrics
from eventq_opentelemetry.saved import Memory, memory_of, memory_text
from eventq_opentelemetry.trail import Out, Trail, Wants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.sdk.trace.sampling import Sampler

    from eventq.events import LostEvent

log: Final = logging.getLogger("eventq.tracer")

#: The name that the place in each stream is saved under.
CONSUMER: Final = "opentelemetry"
#: Seconds between two looks at how queues are, for the metrics.
_LOOK_EVERY: Final = 5.0
_LOOK_PATIENCE: Final = 2.0
#: Seconds that log records are tried to be sent: they must not keep spans from going on.
_LOG_PATIENCE: Final = 30.0
#: Entries that are made into spans without a look at what else is to be done.
_AT_ONCE: Final = 4


class StreamTracer(Opened):
    """Makes spans of what the events of queues say and hands them to an exporter of OpenTelemetry's.

    One `add` span per job, and per run one `queued` and one `process`, with ids that worker and tracer work out alike: child
    spans made in a processor are below their run. The place in the stream is saved only after the exporter said success; what is
    read again after a crash makes the same spans again, to the byte. While they are not taken nothing is read on: the events
    wait in Redis, and no job waits for them.

    span_exporter: any of the SDK's; it is called in a thread and shut down at the end. log_exporter: exceptions as log records
    too; exception_events: and as events of their span. meter_provider: where metrics of the same events go; None for none.
    queues: only these; else all, new ones too. consumer: a second process with the same name stands by. sampler: of jobs that
    were added outside of any trace; else that of the environment (OTEL_TRACES_SAMPLER). What failed, stalled or took `slow`
    seconds is kept in any case. queued: `queued` spans too. exception_messages: False leaves messages and stack traces out;
    redact changes them. service: `service.name` of what nobody told the name of.

    `async with`, or `open` and `close`.
    """

    def __init__(
        self,
        span_exporter: SpanExporter,
        *,
        url: str | None = None,
        prefix: str = "eventq",
        queues: Sequence[str] | None = None,
        consumer: str = CONSUMER,
        log_exporter: LogRecordExporter | None = None,
        meter_provider: MeterProvider | None = None,
        sampler: Sampler | None = None,
        queued: bool = True,
        slow: float | None = None,
        exception_messages: bool = True,
        exception_events: bool = True,
        redact: Callable[[str], str] | None = None,
        service: str | None = None,
        hold: float = 10.0,
    ) -> None:
        """Name it; nothing is opened yet. Raises ConfigurationError naming option and value."""
        if slow is not None and (not math.isfinite(slow) or slow < 0):
            raise ConfigurationError(f"slow {slow!r}: must be seconds, not negative")
        self._follower = Follower(consumer, self, url=url, prefix=prefix, queues=queues, hold=hold)
        provider = TracerProvider(shutdown_on_exit=False)
        if service is None:
            told = str(provider.resource.attributes.get(names.SERVICE_NAME, ""))
            service = "eventq" if told.startswith("unknown_service") or not told else told
        self._wants = Wants(
            sampler=provider.sampler if sampler is None else sampler,
            style=Style(
                queued=queued,
                messages=exception_messages,
                exceptions=exception_events,
                redact=redact,
                service=service,
                server=_server_of(self._follower.where),
            ),
            slow_ms=math.inf if slow is None else slow * 1000,
            logs=log_exporter is not None,
            metrics=meter_provider is not None,
        )
        self._spans = Delivery(span_exporter, "spans")
        self._logs = Delivery(log_exporter, "log records", patience=_LOG_PATIENCE) if log_exporter is not None else None
        self._metrics = Metrics(meter_provider) if meter_provider is not None else None
        self._trails: dict[str, Trail] = {}
        #: Read and not yet made into spans.
        self._read: deque[EventBatch | LostEvent] = deque()
        self._flushing = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False
        #: Made and not sent yet. It outlives a flush that is cancelled: others may go on from its place.
        self._out = Out()
        #: Queues that lost events: their workers' words may be among them.
        self._strange: set[str] = set()
        self.unsampled = 0
        self.lost_events = 0

    # -- life

    async def open(self) -> Self:
        """Connect and begin. Raises QueueUnavailable, ServerRefused or ConfigurationError: away, refused, too old."""
        await self._follower.open()
        self._looking = asyncio.create_task(self._keep_looking(), name="eventq-tracer look")
        return self

    async def close(self) -> None:
        """Save where it is, give the name up, close connections and exporters. Safe to call twice."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.wait([looking])
        await self._follower.close()
        if not self._is_closed:
            self._is_closed = True
            await self._spans.close()
            if self._logs is not None:
                await self._logs.close()

    # -- how it is doing

    @property
    def where(self) -> str:
        """The server, without user and password."""
        return self._follower.where

    @property
    def is_leading(self) -> bool:
        """Whether this process is not standing by for another one of the same name."""
        return self._follower.is_leading

    @property
    def failure(self) -> BaseException | None:
        """What it stopped with, if something did that no repeating mends."""
        return self._follower.failure

    @property
    def sent(self) -> int:
        """Spans that were taken."""
        return self._spans.sent

    @property
    def dropped(self) -> int:
        """Spans and log records that were left out: refused again and again by what takes others; records that nobody took."""
        return self._spans.dropped + (self._logs.dropped if self._logs else 0)

    @property
    def refused(self) -> int:
        """Requests that were not taken; each was or will be made again."""
        return self._spans.refused + (self._logs.refused if self._logs else 0)

    @property
    def is_down(self) -> bool:
        """Whether spans or log records are not taken just now."""
        return self._spans.is_down or (self._logs is not None and self._logs.is_down)

    @property
    def open_runs(self) -> int:
        """Runs that are going on."""
        return sum(len(trail.memory.runs) for trail in self._trails.values())

    # -- what the follower tells

    async def restored(self, queue: str, state: str) -> None:
        """Take a queue, with what was kept of it. Of one that was never read, workers are looked up that said who they are before
        what is left of its events. Only then: spans of events that are read again must not know more than the first time.
        """
        memory = memory_of(state)
        self._trails[queue] = Trail(queue, memory or Memory(), self._wants, scope=scope_of(self._follower.prefix, queue))
        if memory is None:
            await self._look_up(queue)

    async def _look_up(self, queue: str) -> None:
        try:
            async with asyncio.timeout(_LOOK_PATIENCE):
                state = await self._follower.observe(queue)
        except (EventqError, TimeoutError, KeyError) as error:
            log.warning("queue %s: its workers could not be looked up: %s", queue, error)
            return
        if queue in self._trails:
            self._trails[queue].introduce(state.workers)

    def received(self, batch: EventBatch) -> None:
        """Take events."""
        self._read.append(batch)

    def lost(self, event: LostEvent) -> None:
        """Take a gap."""
        log.warning("queue %s: %d events are lost (%s), %d undone", event.queue, event.count, event.reason, event.undone)
        self._strange.add(event.queue)
        self._read.append(event)

    async def flush(self) -> None:
        """Make spans of what was read, and send them."""
        async with self._flushing:
            while self._strange:
                await self._look_up(self._strange.pop())
            # Cancelled anywhere here, what was read is either still there or in `out`: the next flush goes on with it.
            while self._read:
                self._take(self._read.popleft())
                if len(self._read) % _AT_ONCE == 0:
                    await asyncio.sleep(0)
            await self._deliver()

    async def _deliver(self) -> None:
        out = self._out
        await self._spans.send(out.spans)
        if self._logs is not None:
            await self._logs.send(out.logs)
        self._out = Out()
        self.unsampled += out.unsampled
        if self._metrics is not None:
            self._metrics.record(out.measured)

    def state(self, queue: str) -> str:
        """Return what is kept of a queue."""
        return memory_text(self._trails[queue].memory)

    def saved(self, queue: str) -> None:
        """Nothing to do: what is sent is sent."""

    def left(self, queue: str) -> None:
        """Forget a queue: another process has it, or it is gone."""
        self._trails.pop(queue, None)
        self._read = deque(each for each in self._read if each.queue != queue)
        self._strange.discard(queue)
        if self._metrics is not None:
            self._metrics.forget(queue)

    def _take(self, each: EventBatch | LostEvent) -> None:
        trail = self._trails.get(each.queue)
        if trail is None:
            return
        if isinstance(each, EventBatch):
            trail.received(each, self._out)
        else:
            self.lost_events += each.count
            if self._metrics is not None:
                self._metrics.lost(each.queue, each.count, each.reason)
            trail.lost(each, self._out)

    async def _keep_looking(self) -> None:
        if self._metrics is None:
            return
        while True:
            for queue in list(self._trails):
                with contextlib.suppress(EventqError, KeyError):  # away, or given up meanwhile: the next look tells
                    state = await self._follower.observe(queue)
                    self._metrics.observed(queue, state, self._follower.queues[queue].seq)
            doing = Doing(
                sent=self.sent, dropped=self.dropped, unsampled=self.unsampled, refused=self.refused, open_runs=self.open_runs
            )
            self._metrics.tell(doing)
            await asyncio.sleep(_LOOK_EVERY)


def _server_of(where: str) -> tuple[str, int] | None:
    try:
        parts = urlsplit(where)
        return (parts.hostname, parts.port or 6379) if parts.scheme in ("redis", "rediss") and parts.hostname else None
    except ValueError:
        return None
