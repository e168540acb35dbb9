"""`eventq queues`: every queue of a server, how many jobs of each state it has, and whether it is paused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventq.cli.opening import Place, open_server
from eventq.cli.runtime import run_async, say
from eventq.cli.tables import Column, Styled, print_json_line, print_table
from eventq.cli.text import number
from eventq.commands.inspect import list_queues
from eventq.commands.read import count_jobs, is_paused
from eventq.errors import EventqError, QueueUnavailable
from eventq.keys import QueueKeys
from eventq.states import JobState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventq.cli.tables import Cell
    from eventq.client import AsyncRunner

__all__ = ["print_queues"]

_SHOWN: Final = (
    JobState.WAITING,
    JobState.PRIORITIZED,
    JobState.DELAYED,
    JobState.ACTIVE,
    JobState.WAITING_CHILDREN,
    JobState.COMPLETED,
    JobState.FAILED,
)


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queue and its counts; `counts` as Queue.get_job_counts gives them."""

    name: str
    tag: str
    paused: bool
    counts: Mapping[JobState, int]


def print_queues(place: Place, *, as_json: bool) -> None:
    """Print all of them by name. Two round trips per queue."""
    queues = run_async(lambda: _read(place))
    if as_json:
        for each in queues:
            counts = {state.value: count for state, count in each.counts.items()}
            print_json_line({"name": each.name, "tag": each.tag, "paused": each.paused, "counts": counts})
        return
    if not queues:
        say("there is no queue yet: one is listed when its first job is added or its first worker starts")
        return
    shown = [state for state in _SHOWN if state is not JobState.WAITING_CHILDREN or any(q.counts[state] for q in queues)]
    heads = [Column("queue"), Column("state"), *(Column(state.value, right=True) for state in shown)]
    print_table(heads, [_row(each, shown) for each in queues])


def _row(queue: QueueFacts, shown: list[JobState]) -> list[Cell]:
    counts = {**queue.counts, JobState.WAITING: queue.counts[JobState.WAITING] + queue.counts[JobState.PAUSED]}
    state: Cell = Styled("paused", "magenta") if queue.paused else "running"
    return [queue.name, state, *(_count(each, counts[each]) for each in shown)]


def _count(state: JobState, count: int) -> Cell:
    return Styled(number(count), "red") if count and state is JobState.FAILED else number(count)


async def _read(place: Place) -> list[QueueFacts]:
    async with open_server(place) as runner:
        listed = await runner.run_verb(list_queues(place.prefix))
        found = [await _read_one(runner, name, tag, place.prefix) for name, tag in sorted(listed.items())]
    return [each for each in found if each]


async def _read_one(runner: AsyncRunner, name: str, tag: str, prefix: str) -> QueueFacts | None:
    try:
        keys = QueueKeys(name, prefix=prefix, tag=tag)
        counts = await runner.run(count_jobs(keys))
        return QueueFacts(name, tag, await runner.run_verb(is_paused(keys)), counts)
    except QueueUnavailable:
        raise
    except EventqError as error:  # one that is not readable keeps nobody from seeing the others
        say(f"queue {name!r} is left out: {error}")
        return None
