"""Listeners: blinker signals underneath (the only import of blinker), each receiver isolated from jobs and from each other.

One signal per event kind; the sender is the queue or the worker. Every receiver has a bounded queue of its own and gets its
events one at a time, in order: an `async def` is awaited on the loop, a plain function is called in a thread, so one that
blocks delays nothing but itself. What a receiver raises becomes an `error` event.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar, overload

from blinker import Namespace

from eventq.errors import ConfigurationError
from eventq.events import (
    KINDS,
    ActiveEvent,
    AddedEvent,
    CleanedEvent,
    CompletedEvent,
    DelayedEvent,
    DrainedEvent,
    DuplicatedEvent,
    ErrorEvent,
    Event,
    FailedEvent,
    LostEvent,
    ObliteratedEvent,
    PausedEvent,
    ProgressEvent,
    ReleasedEvent,
    RemovedEvent,
    ResumedEvent,
    RetryingEvent,
    ScheduleMissedEvent,
    StalledEvent,
    UpdatedEvent,
    WaitingEvent,
    WorkerStartedEvent,
    WorkerStoppedEvent,
)
from eventq.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable

    from blinker import Signal

E = TypeVar("E", bound=Event)
Receiver = TypeVar("Receiver", bound="Callable[[Any], object]")
log: Final = logging.getLogger("eventq")

#: Events that wait for one receiver; beyond it the oldest is dropped and the loss is told as an error.
BACKLOG: Final = 10_000
namespace: Final = Namespace()
_signals: Final[dict[str, Signal]] = {kind: namespace.signal(f"eventq.{kind}", f"eventq event: {kind}") for kind in KINDS}


def signal(kind: str) -> Signal:
    """Return the blinker signal of an event kind. Raises ConfigurationError for an unknown one."""
    try:
        return _signals[kind]
    except KeyError:
        raise ConfigurationError(f"event kind {kind!r}: must be one of {', '.join(KINDS)}") from None


class Subscribe(Generic[E]):
    """What `on(kind)` returns: a decorator that connects a receiver of that event."""

    __slots__ = ("_connect", "_kind")

    def __init__(self, kind: str, connect: Callable[[str, Callable[[Any], object]], None]) -> None:
        self._kind = kind
        self._connect = connect

    def __call__(self, receiver: Callable[[E], object]) -> Callable[[E], object]:
        """Connect the receiver and return it."""
        self._connect(self._kind, receiver)
        return receiver


class _Line:
    """One receiver's events, delivered in order by one task.

    The line, not the receiver, is what blinker holds: a receiver of several senders could not be let go for one of them.
    """

    def __init__(
        self,
        receiver: Callable[[Any], object],
        threads: ThreadPool,
        report: Callable[[str, BaseException], None],
        context: contextvars.Context,
    ) -> None:
        self._receiver = receiver
        self._context = context
        self._report = report
        self._is_ending = False
        self.kinds: set[str] = set()
        self.dropped = 0
        self.begin(threads)

    def begin(self, threads: ThreadPool) -> None:
        """Begin with nothing to deliver."""
        self._threads = threads
        self._events: deque[Event] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to deliver."""
        return self._task is None or self._task.done()

    def __call__(self, event: Event) -> None:
        """Take an event and return at once."""
        self.put(event)

    def put(self, event: Event) -> None:
        if len(self._events) >= BACKLOG:
            self._events.popleft()
            self.dropped += 1
            if self.dropped == 1:
                self._report(f"listener {self._name}: {BACKLOG} events behind, the oldest are dropped", RuntimeError("overflow"))
        self._events.append(event)
        if self.is_idle:
            # Not in the context of whoever tells: what a listener does is no part of the job that told it first.
            self._task = asyncio.get_running_loop().create_task(
                self._deliver(), name=f"eventq-listener {self._name}", context=self._context.copy()
            )

    @property
    def _name(self) -> str:
        return getattr(self._receiver, "__qualname__", repr(self._receiver))

    async def _deliver(self) -> None:
        while self._events:
            event = self._events.popleft()
            try:
                if inspect.iscoroutinefunction(self._receiver):
                    await self._receiver(event)
                else:
                    answer = await self._threads.call(asyncio.get_running_loop(), self._receiver, event)
                    if inspect.isawaitable(answer):
                        await answer
            except (KeyboardInterrupt, GeneratorExit):
                raise
            except BaseException as error:  # whatever a listener raises is its own; it is reported, never passed on
                if self._is_ending:
                    raise
                self._report(f"listener {self._name} raised on {event.kind}: {error!r}", error)

    async def finish(self, deadline: float) -> None:
        """Let it work off what it has until the deadline (loop time), then cancel it."""
        if self._task is None or self._task.done():
            return
        await asyncio.wait([self._task], timeout=max(0.0, deadline - asyncio.get_running_loop().time()))
        if not self._task.done():
            self._is_ending = True
            self._task.cancel()
            await asyncio.wait([self._task], timeout=0.1)


class Listeners:
    """The receivers of one sender (a queue or a worker)."""

    def __init__(self, sender: object, queue: str) -> None:
        self._sender = sender
        self._queue = queue
        self._lines: dict[object, _Line] = {}
        # Not the loop's own: a few listeners that hang would keep everybody's calls waiting, and the program from ending.
        self._threads = ThreadPool(f"eventq-listeners {queue}")
        self._context = contextvars.copy_context()
        #: Whose error listeners hear what a receiver here raises.
        self.errors_to = self

    def begin(self) -> None:
        """Begin with nothing to deliver: in a forked child, where the parent's tasks and threads are not."""
        self._threads = ThreadPool(f"eventq-listeners {self._queue}")
        for line in self._lines.values():
            line.begin(self._threads)

    def connect(self, kind: str, receiver: Callable[[Any], object]) -> None:
        """Connect a receiver, held strongly. Raises ConfigurationError for an unknown kind or what cannot be called."""
        if not callable(receiver):
            raise ConfigurationError(f"receiver {receiver!r}: must be callable with one event")
        line = self._line(receiver)
        line.kinds.add(kind)
        signal(kind).connect(line, sender=self._sender, weak=False)

    def disconnect(self, kind: str, receiver: Callable[[Any], object]) -> None:
        """Disconnect a receiver; what it has been handed already is still delivered."""
        found, line = signal(kind), self._lines.get(_identity(receiver))
        if line is not None and kind in line.kinds:
            line.kinds.remove(kind)
            found.disconnect(line)
            if not line.kinds and line.is_idle:
                del self._lines[_identity(receiver)]

    def wants(self, kind: str) -> bool:
        """Whether anybody listens; cheap, so that events nobody wants are never built."""
        found = _signals[kind]
        return bool(found.receivers) and found.has_receivers_for(self._sender)

    def send(self, event: Event) -> None:
        """Hand an event to every receiver's line and return at once."""
        found = _signals.get(event.kind)
        if found is None or not found.receivers:
            return
        for receiver in found.receivers_for(self._sender):
            (receiver if isinstance(receiver, _Line) else self._line(receiver)).put(event)

    def _line(self, receiver: Callable[[Any], object]) -> _Line:
        line = self._lines.get(_identity(receiver))
        if line is None:
            line = self._lines[_identity(receiver)] = _Line(receiver, self._threads, self._report, self._context)
        return line

    def _report(self, message: str, error: BaseException) -> None:
        log.warning("queue %s: %s", self._queue, message)
        # A failing error listener is only logged: telling it about itself would never end.
        if "raised on error:" not in message and self.errors_to.wants("error"):
            self.errors_to.send(ErrorEvent(queue=self._queue, message=message, error=error))

    async def close(self, grace: float = 1.0) -> None:
        """Let receivers finish what they have, at most so long (seconds), then cancel them and let them go."""
        deadline = asyncio.get_running_loop().time() + grace
        for line in list(self._lines.values()):
            await line.finish(deadline)
            for kind in line.kinds:
                signal(kind).disconnect(line)
        self._lines.clear()
        self._threads.close()


def _identity(receiver: Callable[[Any], object]) -> object:
    """Return what tells receivers apart: every look at a method makes another object of it."""
    owner = getattr(receiver, "__self__", None)
    function: object = getattr(receiver, "__func__", None)
    if owner is None:
        return id(receiver)
    return id(owner), id(function) if function is not None else getattr(receiver, "__name__", id(receiver))


class Listening:
    """Mixin: `on`, typed by event kind."""

    listeners: Listeners

    @overload
    def on(self, kind: Literal["added"]) -> Subscribe[AddedEvent]: ...
    @overload
    def on(self, kind: Literal["duplicated"]) -> Subscribe[DuplicatedEvent]: ...
    @overload
    def on(self, kind: Literal["waiting"]) -> Subscribe[WaitingEvent]: ...
    @overload
    def on(self, kind: Literal["active"]) -> Subscribe[ActiveEvent]: ...
    @overload
    def on(self, kind: Literal["progress"]) -> Subscribe[ProgressEvent]: ...
    @overload
    def on(self, kind: Literal["completed"]) -> Subscribe[CompletedEvent]: ...
    @overload
    def on(self, kind: Literal["retrying"]) -> Subscribe[RetryingEvent]: ...
    @overload
    def on(self, kind: Literal["failed"]) -> Subscribe[FailedEvent]: ...
    @overload
    def on(self, kind: Literal["released"]) -> Subscribe[ReleasedEvent]: ...
    @overload
    def on(self, kind: Literal["stalled"]) -> Subscribe[StalledEvent]: ...
    @overload
    def on(self, kind: Literal["delayed"]) -> Subscribe[DelayedEvent]: ...
    @overload
    def on(self, kind: Literal["updated"]) -> Subscribe[UpdatedEvent]: ...
    @overload
    def on(self, kind: Literal["removed"]) -> Subscribe[RemovedEvent]: ...
    @overload
    def on(self, kind: Literal["cleaned"]) -> Subscribe[CleanedEvent]: ...
    @overload
    def on(self, kind: Literal["obliterated"]) -> Subscribe[ObliteratedEvent]: ...
    @overload
    def on(self, kind: Literal["schedule_missed"]) -> Subscribe[ScheduleMissedEvent]: ...
    @overload
    def on(self, kind: Literal["drained"]) -> Subscribe[DrainedEvent]: ...
    @overload
    def on(self, kind: Literal["paused"]) -> Subscribe[PausedEvent]: ...
    @overload
    def on(self, kind: Literal["resumed"]) -> Subscribe[ResumedEvent]: ...
    @overload
    def on(self, kind: Literal["lost"]) -> Subscribe[LostEvent]: ...
    @overload
    def on(self, kind: Literal["error"]) -> Subscribe[ErrorEvent]: ...
    @overload
    def on(self, kind: Literal["worker_started"]) -> Subscribe[WorkerStartedEvent]: ...
    @overload
    def on(self, kind: Literal["worker_stopped"]) -> Subscribe[WorkerStoppedEvent]: ...
    @overload
    def on(self, kind: str, receiver: Receiver) -> Receiver: ...

    def on(self, kind: str, receiver: Callable[[Any], object] | None = None) -> Any:
        """Connect a receiver to an event kind: `@x.on("completed")`, or `x.on("completed", receiver)`.

        An `async def` receiver is awaited on the loop, a plain function is called in a thread; each gets its events in order,
        one at a time. Nothing a receiver does reaches a job. Raises ConfigurationError for an unknown kind.
        """
        signal(kind)
        if receiver is None:
            return Subscribe[Any](kind, self._listen)
        self._listen(kind, receiver)
        return receiver

    def off(self, kind: str, receiver: Callable[[Any], object]) -> None:
        """Disconnect a receiver; one that was never connected is no error."""
        self.listeners.disconnect(kind, receiver)

    def _listen(self, kind: str, receiver: Callable[[Any], object]) -> None:
        self.listeners.connect(kind, receiver)
