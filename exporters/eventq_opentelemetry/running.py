"""A tracer from its options to its end, as the command runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Final

from eventq_opentelemetry.environment import exception_events, log_exporter, meter_provider, span_exporter
from eventq_opentelemetry.tracer import CONSUMER, StreamTracer

__all__ = ["Options", "run_tracer"]

log: Final = logging.getLogger("eventq.tracer")

#: Seconds between two looks at whether it still works, and between two lines about a destination that takes nothing.
_LOOK_EVERY: Final = 0.5
_TELL_EVERY: Final = 60.0
#: Seconds that the last metrics may take.
_LAST_WORDS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said on the command line."""

    url: str | None = None
    prefix: str = "eventq"
    queues: tuple[str, ...] | None = None
    consumer: str = CONSUMER
    queued: bool = True
    slow: float | None = None
    exception_messages: bool = True


async def run_tracer(options: Options) -> None:
    """Trace until cancelled. Raises ConfigurationError, QueueUnavailable, ServerRefused: what is wrong, in one line."""
    meters = meter_provider()
    try:
        tracer = StreamTracer(
            span_exporter(),
            log_exporter=log_exporter(),
            meter_provider=meters,
            exception_events=exception_events(),
            url=options.url,
            prefix=options.prefix,
            queues=options.queues,
            consumer=options.consumer,
            queued=options.queued,
            slow=options.slow,
            exception_messages=options.exception_messages,
        )
        async with tracer:
            log.info("tracing the queues of %s", tracer.where)
            await _watch(tracer)
    finally:
        if meters is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS):
                    await asyncio.to_thread(meters.shutdown)


async def _watch(tracer: StreamTracer) -> None:
    """Say how it is doing where it is not doing well. Raises what it stopped with."""
    told = asyncio.get_running_loop().time()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        if tracer.failure is not None:
            raise tracer.failure
        now = asyncio.get_running_loop().time()
        if not tracer.is_down:
            told = now
        elif now - told >= _TELL_EVERY:
            told = now
            log.warning("still not taken: %d requests so far; %d spans were sent before", tracer.refused, tracer.sent)
