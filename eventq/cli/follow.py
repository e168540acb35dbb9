"""`eventq events`: a queue's events as they arrive, a line each."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from eventq.cli.facts import event_document, event_facts_for_people
from eventq.cli.opening import Place, find_queue
from eventq.cli.runtime import UsageError, run_async, say, until_stopped
from eventq.cli.text import counted, plain, quoted, shorten
from eventq.events import STREAM_EVENTS, Event, JobEvent, LostEvent

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.queue_events import EventStream

__all__ = ["Following", "event_json", "event_line", "follow"]

_KINDS: Final = (*STREAM_EVENTS, LostEvent.kind)
#: Of a job's event, not on lines for people; `--json` has them.
_HIDDEN: Final = frozenset({"worker", "traceparent", "tracestate", "service", "propagation", "batch", "link", "span", "added"})
#: Said only when there is something to say.
_USUALLY_ZERO: Final = frozenset({"attempt", "count", "exhausted", "priority", "result_omitted", "stalls"})
#: Characters of one value on a line for people.
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """What to show. No kinds: all. count: end after so many lines, None for never."""

    queue: str
    place: Place
    consumer: str | None = None
    kinds: tuple[str, ...] = ()
    as_json: bool = False
    count: int | None = None


def follow(wanted: Following) -> None:
    """Print events until the count is reached, SIGTERM, SIGINT, or nobody reads any more."""
    for kind in wanted.kinds:
        if kind not in _KINDS:
            raise UsageError(f"--kind {kind!r}: must be one of {', '.join(_KINDS)}")
    run_async(lambda: until_stopped(_follow(wanted)))


async def _follow(wanted: Following) -> None:
    queue, _ = await find_queue(wanted.queue, wanted.place)
    try:
        await queue.is_paused()  # a server that is not there is told now; later the stream waits for it by itself
        async with queue.events(wanted.consumer) as stream:
            say(f"listening to {queue!r}" + (f" as {wanted.consumer}" if wanted.consumer else ""))
            await _print_events(stream, wanted)
    finally:
        await queue.close()


async def _print_events(stream: EventStream, wanted: Following) -> None:
    write: Callable[[Event], str] = event_json if wanted.as_json else event_line
    left = wanted.count
    async for event in stream:
        if isinstance(event, LostEvent) and not wanted.as_json:
            lost = counted(event.count, "event") if event.count else "an unknown number of events"
            say(f"{lost} before this one, lost: {event.reason}")
        if wanted.kinds and event.kind not in wanted.kinds:
            continue
        sys.stdout.write(write(event) + "\n")
        sys.stdout.flush()
        if left is not None:
            left -= 1
            if left <= 0:
                await _acknowledge(stream)
                return


async def _acknowledge(stream: EventStream) -> None:
    """Say that the last event is handled, by asking for the next one and not waiting for it."""
    asking = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait([asking])


def event_json(event: Event) -> str:
    """Return the event as one line of ASCII JSON: kind, queue, seq, time, then its facts; durations in seconds."""
    return json.dumps(event_document(event), default=str)


def event_line(event: Event) -> str:
    """Return the event as one line for people; whatever the job or its error said stands there as text."""
    facts = event_facts_for_people(event)
    # One word, so that the kind is the third on every line.
    words = [
        datetime.fromtimestamp(event.ms / 1000).astimezone().isoformat(timespec="milliseconds") if event.ms else "-",
        f"#{event.seq}",
        event.kind,
    ]
    words += [quoted(facts.pop(key)) for key in ("job_id", "name") if facts.get(key)]
    return " ".join([*words, *(f"{key}={_shown(key, value)}" for key, value in facts.items() if _is_said(event, key, value))])


def _is_said(event: Event, key: str, value: Any) -> bool:
    if value is None or value == "" or (isinstance(event, JobEvent) and key in _HIDDEN):
        return False
    return bool(value) or key not in _USUALLY_ZERO


def _shown(key: str, value: Any) -> str:
    if key == "error" and isinstance(value, dict):
        value = f"{value['type']}: {value['message']}"
    elif isinstance(value, float):
        value = f"{value:.3f}"
    elif isinstance(value, dict | list):
        # JSON says itself where it ends, and would read badly with every quote escaped.
        return plain(shorten(json.dumps(value, ensure_ascii=False, separators=(",", ":")), _LONGEST))
    return quoted(shorten(str(value), _LONGEST))
