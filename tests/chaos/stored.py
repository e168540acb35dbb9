"""What Redis holds of a queue, read by a plain client in one transaction and parsed here: eventq's own parsers are not asked."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import redis

#: The sorted sets that are states, and the state's name.
STATE_SETS = {
    "prioritized": "prioritized",
    "delayed": "delayed",
    "leases": "active",
    "waiting_children": "waiting_children",
    "completed": "completed",
    "failed": "failed",
}
#: The member of `leases` that is no job begins so.
NO_JOB = "no-job:"
TERMINAL = ("completed", "failed")


@dataclass(frozen=True, slots=True)
class Happened:
    """One event: of the jobs named, or of the queue. `facts` is the JSON object on the stream, `entry` its entry's id, `ms` the
    server's time.
    """

    seq: int
    kind: str
    job_ids: tuple[str, ...]
    facts: dict[str, Any]
    entry: str = ""
    ms: int = 0


@dataclass(frozen=True, slots=True)
class Stored:
    """A queue at one moment.

    states: where each stored job says it is. places: the state columns in which an id stands, holes of `wait` left out.
    counters: of each job that ever ran, how often it started and was released. events: in the order of the stream.
    """

    states: dict[str, str]
    places: dict[str, list[str]]
    counters: dict[str, tuple[int, int]]
    totals: dict[str, int]
    seq: int
    events: list[Happened]

    @property
    def is_complete(self) -> bool:
        """Whether every event there ever was is still on the stream."""
        return [event.seq for event in self.events] == list(range(1, self.seq + 1))


def key_of(queue: str, column: str, *, prefix: str = "eventq", tag: str | None = None) -> str:
    """Return the key of one column."""
    return f"{prefix}:{{{tag or queue}}}:{queue}:{column}"


def is_drained(client: redis.Redis, queue: str, *, prefix: str = "eventq", tag: str | None = None) -> bool:
    """Return whether everything that is stored has ended: nothing waits, is delayed or runs."""
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hlen(key_of(queue, "jobs", prefix=prefix, tag=tag))
        for column in TERMINAL:
            pipeline.zcard(key_of(queue, column, prefix=prefix, tag=tag))
        stored, *ended = cast("list[int]", pipeline.execute())
    return stored == sum(ended)


def read_stored(client: redis.Redis, queue: str, *, prefix: str = "eventq", tag: str | None = None) -> Stored:
    """Read everything at once."""
    hashes = ("jobs", "runs", "totals", "meta")
    with client.pipeline(transaction=True) as pipeline:
        for column in hashes:
            pipeline.hgetall(key_of(queue, column, prefix=prefix, tag=tag))
        for column in STATE_SETS:
            pipeline.zrange(key_of(queue, column, prefix=prefix, tag=tag), 0, -1)
        pipeline.lrange(key_of(queue, "wait", prefix=prefix, tag=tag), 0, -1)
        pipeline.xrange(key_of(queue, "events", prefix=prefix, tag=tag))
        jobs, runs, totals, meta, *sets, wait, entries = _text(pipeline.execute())
    states = {job_id: _state(record, runs.get(job_id)) for job_id, record in jobs.items()}
    places: dict[str, list[str]] = defaultdict(list)
    for state, members in zip(STATE_SETS.values(), sets, strict=True):
        for member in members:
            if not member.startswith(NO_JOB):
                places[member].append(state)
    for job_id in dict.fromkeys(wait):
        if states.get(job_id) == "waiting":
            places[job_id].append("waiting")
    return Stored(
        states,
        dict(places),
        {job_id: (int(words[5]), int(words[8])) for job_id, words in ((key, text.split(" ")) for key, text in runs.items())},
        {field: int(number) for field, number in totals.items()},
        int(meta.get("seq", 0)),
        [event for entry, fields in entries for event in _events(entry, fields)],
    )


def _state(record: str, run: str | None) -> str:
    """Return the state of a job: the first word of its run, or where it was put when it was added."""
    if run is not None:
        return run.partition(" ")[0]
    _, _, due, priority, *_ = record.partition("\n")[0].split("\t")
    return "delayed" if due else "prioritized" if priority else "waiting"


def _events(entry: str, fields: dict[str, str]) -> list[Happened]:
    facts = json.loads(fields["events"])
    assert len(facts) == int(fields["n"]), f"an entry says n {fields['n']} and carries {len(facts)} events"
    first = int(fields["seq"])
    kind, ms = fields["kind"], int(fields["ms"])
    return [Happened(first + index, kind, _job_ids(each), each, entry, ms) for index, each in enumerate(facts)]


def _job_ids(facts: dict[str, Any]) -> tuple[str, ...]:
    return (facts["job_id"],) if "job_id" in facts else tuple(facts.get("job_ids", ()))


def _text(reply: Any) -> Any:
    """Return a reply with its bytes decoded, however deep they are."""
    match reply:
        case bytes():
            return reply.decode()
        case dict():
            return {_text(key): _text(value) for key, value in reply.items()}
        case list() | tuple():
            return [_text(each) for each in reply]
        case other:
            return other
