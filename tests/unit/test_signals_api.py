"""`on` and `off` as users call them, without a server: what is accepted, what is refused, what type checkers are told."""

from __future__ import annotations

import asyncio
import re
import typing
from typing import Any, Literal, cast

import pytest

import eventq.signals
from eventq import ConfigurationError, JobQueue, Queue, Worker
from eventq.events import KINDS, LOCAL_EVENTS, STREAM_EVENTS, CompletedEvent, Event, FailedEvent, UnknownEvent
from eventq.signals import Listeners, Listening, Subscribe, namespace, signal


class Source(Listening):
    """Something to listen to."""

    def __init__(self) -> None:
        self.listeners = Listeners(self, "q")


async def settle(source: Source) -> None:
    """Let every receiver work off what it has."""
    await source.listeners.close(5)


def test_there_is_one_signal_per_kind() -> None:
    """Each kind has its own blinker signal, under a name of ours, with a docstring."""
    assert {f"eventq.{kind}" for kind in KINDS} == set(namespace)
    assert all(signal(kind) is namespace[f"eventq.{kind}"] for kind in KINDS)
    assert all(signal(kind).__doc__ == f"eventq event: {kind}" for kind in KINDS)


@pytest.mark.parametrize("cls", [Queue, Worker, JobQueue])
def test_type_checkers_know_every_kind(cls: Any) -> None:
    """`on` has an overload per kind, which says the class of its events."""
    known: dict[str, type[Event]] = {}
    for overload in typing.get_overloads(cls.on):
        hints = typing.get_type_hints(overload, dict(vars(eventq.signals)))
        if typing.get_origin(hints["kind"]) is Literal:
            (kind,) = typing.get_args(hints["kind"])
            assert typing.get_origin(hints["return"]) is Subscribe
            (known[kind],) = typing.get_args(hints["return"])
    assert known == {**STREAM_EVENTS, **LOCAL_EVENTS}


@pytest.mark.parametrize("kind", ["", "done", "Completed", "unknown", "completed ", None, 5])
def test_an_unknown_kind_is_refused_at_once(kind: Any) -> None:
    """Listening for what never comes is an error that lists what does, before any receiver is looked at."""
    for call in (
        lambda: Source().on(kind),
        lambda: Source().on(kind, print),
        lambda: signal(kind),
        lambda: Source().off(kind, print),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(f"event kind {kind!r}: must be one of added, duplicated")):
            call()


@pytest.mark.parametrize("receiver", [5, "completed", object()])
def test_what_cannot_be_called_is_refused(receiver: Any) -> None:
    """A receiver is called with one event; anything else is an error at once."""
    with pytest.raises(ConfigurationError, match="must be callable with one event"):
        Source().on("completed", receiver)


def test_on_gives_the_receiver_back() -> None:
    """As a decorator and as a call, so that the name still is the function."""
    source = Source()

    def note(event: CompletedEvent) -> None:
        raise AssertionError(event)

    assert source.on("completed")(note) is note
    assert source.on("completed", note) is note


async def test_a_kind_reaches_its_receivers_and_no_others() -> None:
    """One signal per kind, one sender per object: nobody hears what was not meant for them."""
    source, other = Source(), Source()
    heard: list[tuple[str, str]] = []
    for who, where, kind in (
        ("a", source, "completed"),
        ("b", source, "completed"),
        ("c", source, "failed"),
        ("d", other, "completed"),
    ):

        async def note(event: Event, who: str = who) -> None:
            heard.append((who, event.kind))

        where.on(kind, note)
    source.listeners.send(CompletedEvent())
    source.listeners.send(FailedEvent())
    source.listeners.send(UnknownEvent(name="promised"))
    await settle(source)
    await settle(other)
    assert sorted(heard) == [("a", "completed"), ("b", "completed"), ("c", "failed")]


async def test_one_receiver_of_several_kinds_hears_them_in_order() -> None:
    """Order holds per receiver, over all kinds it listens to; connected twice, it is told once."""
    source, heard = Source(), list[tuple[str, int]]()

    async def note(event: Event) -> None:
        await asyncio.sleep(0)  # sleep-ok: a turn for the others, which must not overtake
        heard.append((event.kind, event.seq))

    for kind in ("completed", "failed", "completed"):
        source.on(kind, note)
    events = [CompletedEvent(seq=1), FailedEvent(seq=2), CompletedEvent(seq=3), FailedEvent(seq=4)]
    for event in events:
        source.listeners.send(event)
    await settle(source)
    assert heard == [(event.kind, event.seq) for event in events]


async def test_off_takes_one_kind_away() -> None:
    """After `off` that kind is not heard; others still are; `off` for what was never connected is no error."""
    source, heard = Source(), list[str]()

    async def note(event: Event) -> None:
        heard.append(event.kind)

    source.on("completed", note)
    source.on("failed", note)
    source.off("completed", note)
    source.off("completed", note)
    source.off("stalled", print)
    source.listeners.send(CompletedEvent())
    source.listeners.send(FailedEvent())
    await settle(source)
    assert heard == ["failed"]


def test_nobody_wants_what_nobody_listens_to() -> None:
    """`wants` is what decides whether an event is built at all."""
    source = Source()
    assert not any(source.listeners.wants(kind) for kind in KINDS)
    source.on("completed", print)
    assert [kind for kind in KINDS if source.listeners.wants(kind)] == ["completed"]
    assert not Source().listeners.wants("completed")


def test_queues_and_workers_can_be_listened_to_before_anything_is_opened() -> None:
    """Connecting needs neither a server nor a running loop."""
    queue = Queue[Any, Any]("q", url="redis://127.0.0.1:1")
    worker = Worker(queue, {"n": print})
    for each in (queue, worker):
        assert isinstance(each, Listening)
        each.on("completed", print)
        assert each.listeners.wants("completed")
        each.off("completed", print)
    assert cast("Any", queue)._listener.is_ready is False
