"""One queue under the microscope: scripts called by hand, as any writer with any number, and what is stored read back."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from redis.exceptions import NoScriptError

from eventq.client import Server
from eventq.client.wire import pack
from eventq.commands.add import Added, NewRecord, add_jobs
from eventq.commands.events import Entry
from eventq.commands.read import count_jobs, get_jobs, list_jobs
from eventq.commands.upkeep import SweepReply, sweep_queue
from eventq.commands.work import Claimed, ClaimReply, Held, Outcome, ProgressUpdate, Retention, settle_and_claim
from eventq.events import Event, parse_entry
from eventq.ids import new_id
from eventq.keys import COLUMNS, QueueKeys
from eventq.options import JobOptions
from eventq.outcome import identity
from eventq.records import StoredJob, UnreadableRecord, parse_record, parse_run
from eventq.states import JobState

if TYPE_CHECKING:
    from eventq.client.wire import SyncConnection
    from eventq.commands.core import Command

R = TypeVar("R")

WORKER = "worker-1"
#: Long enough that no machine is slow enough to end it; tests move the clock instead.
LEASE_MS = 60_000
DAY_MS = 86_400_000
#: The queue's rules as a queue without options has them.
RULES = Retention((10_000, DAY_MS), (10_000, 14 * DAY_MS))
#: The member of `leases` that is no job.
NO_LEASE = "no-job:keeps-this-set-a-skip-list-because-a-listpack-is-scanned-for-each-lease"


class Clock(Protocol):
    """The clock of the tests' conftest."""

    def advance(self, queue_name: str, seconds: float) -> None:
        """Let that many seconds pass for every script of the queue."""


class Lab:
    """A queue of its own on a real server. `sound = False`: the test damages it on purpose, its invariants are not checked.

    url: for scripts, perhaps as a user who may do no more than eventq needs (EVENTQ_TEST_ACL=1); plain commands are sent as another.
    """

    def __init__(self, url: str, name: str, clock: Clock) -> None:
        self.keys = QueueKeys(name)
        self.sound = True
        self.clock = clock
        self._connection = Server(url).sync_connection("lua-tests", 10.0)
        self._plain = Server(re.sub("//[^@]*@", "//", url)).sync_connection("lua-tests", 10.0)
        self._numbers: dict[str, int] = {}
        self._seen = 0

    def close(self) -> None:
        """Close the connections."""
        self._connection.disconnect()
        self._plain.disconnect()

    def redis(self, *words: str | int) -> Any:
        """Send one plain command; replies are as in RESP2."""
        return self._exchange(self._plain, words)

    @staticmethod
    def _exchange(connection: SyncConnection, words: Sequence[str | int]) -> Any:
        connection.send_packed_command([pack(words)])
        return connection.read_response()

    # -- calls

    def send(self, command: Command[Any], writer: str = "writer", number: int | None = None) -> Any:
        """Send a call as this writer with this number (the writer's next by default) and return the raw reply."""
        if command.numbered:
            number = self._numbers.get(writer, 0) + 1 if number is None else number
            self._numbers[writer] = max(number, self._numbers.get(writer, 0))
        words = command.words(writer, number or 0)
        try:
            return self._exchange(self._connection, words)
        except NoScriptError:
            self.redis("SCRIPT", "LOAD", command.script.text)
            return self._exchange(self._connection, words)

    def call(self, command: Command[R], writer: str = "writer", number: int | None = None) -> R:
        """Send a call and return what its parser makes of the reply."""
        return command.read(self.send(command, writer, number))

    def add(self, *records: NewRecord) -> Added:
        """Store jobs in one call."""
        return self.call(add_jobs(self.keys, records), "producer")

    def claim(
        self,
        wanted: int = 1,
        *,
        outcomes: Sequence[Outcome] = (),
        progress: Sequence[ProgressUpdate] = (),
        rules: Retention = RULES,
        worker: str = WORKER,
        writer: str = "lane",
        number: int | None = None,
        lease_ms: int = LEASE_MS,
        max_stalls: int = 0,
        may_risk: bool = True,
    ) -> ClaimReply:
        """Settle and claim in one call."""
        command = settle_and_claim(
            self.keys,
            worker=worker,
            lease_ms=lease_ms,
            wanted=wanted,
            retention=rules,
            progress=progress,
            outcomes=outcomes,
            max_stalls=max_stalls,
            may_risk=may_risk,
        )
        return self.call(command, writer, number)

    def settle(self, *outcomes: Outcome, rules: Retention = RULES) -> list[int]:
        """Settle and claim nothing; return the indexes that were refused."""
        return self.claim(0, outcomes=outcomes, rules=rules).stale

    def finish(self, *records: NewRecord, word: str = "completed", rule: str = "", rules: Retention = RULES) -> None:
        """Add jobs and let each come to this end."""
        self.add(*records)
        claimed = self.claim(len(records)).jobs
        assert [job.id for job in claimed] == [record.id for record in records]
        assert self.settle(*[outcome(job, word, rule) for job in claimed], rules=rules) == []

    def sweep(self, max_stalls: int = 2, *, rules: Retention = RULES, every_ms: int = LEASE_MS * 2 // 5) -> SweepReply:
        """Sweep once."""
        return self.call(sweep_queue(self.keys, LEASE_MS, every_ms, max_stalls, rules), "scheduler")

    def expire_leases(self) -> None:
        """Let every lease granted just now end, on a queue that is swept all the while."""
        for seconds in (25, 25, 11):
            self.sweep()
            self.advance(seconds)

    # -- time

    def advance(self, seconds: float) -> None:
        """Let time pass for the scripts of this queue."""
        self.clock.advance(self.keys.name, seconds)

    def now(self) -> int:
        """Return the time as scripts of this queue see it, in ms."""
        seconds, micros = self.redis("TIME")
        return int(seconds) * 1000 + int(micros) // 1000 + int(self.redis("HGET", self.keys["meta"], "clock_offset") or 0)

    # -- what is stored

    def column(self, column: str) -> Any:
        """Return one column: a dict of a hash, a stream or the scores of a sorted set, a list of a list, None when absent."""
        key = self.keys[column]
        kind = self.redis("TYPE", key)
        if kind == "hash":
            flat = self.redis("HGETALL", key)
        elif kind == "zset":
            flat = self.redis("ZRANGE", key, 0, -1, "WITHSCORES")
        elif kind == "list":
            return self.redis("LRANGE", key, 0, -1)
        elif kind == "stream":
            return {entry: _pairs(fields) for entry, fields in self.redis("XRANGE", key, "-", "+")}
        else:
            return None
        return _pairs(flat) if kind == "hash" else {member: float(score) for member, score in _pairs(flat).items()}

    def dump(self) -> dict[str, Any]:
        """Return every column that is there."""
        return {column: content for column in COLUMNS if (content := self.column(column)) is not None}

    def members(self, column: str) -> list[str]:
        """Return the members of a sorted set in order; of `leases` the jobs."""
        return [member for member in (self.column(column) or {}) if member != NO_LEASE]

    def waiting(self) -> list[str]:
        """Return the list `wait` as it is, holes and all."""
        return self.column("wait") or []

    def marker(self) -> set[str]:
        """Return the members that are armed."""
        return set(self.members("marker"))

    def meta(self, field: str) -> str | None:
        """Return one field of `meta`."""
        text: str | None = self.redis("HGET", self.keys["meta"], field)
        return text

    def total(self, kind: str, name: str = "job") -> int:
        """Return one total."""
        return int(self.redis("HGET", self.keys["totals"], f"{kind} {name}") or 0)

    def job(self, job_id: str) -> StoredJob:
        """Return a stored job."""
        (found,) = self.call(get_jobs(self.keys, [job_id]))
        assert isinstance(found, StoredJob), f"{job_id} is not stored"
        return found

    def state(self, job_id: str) -> JobState | None:
        """Return where a job stands, None when it is not stored."""
        (found,) = self.call(get_jobs(self.keys, [job_id]))
        return found.state if isinstance(found, StoredJob) else None

    def ids(self, state: JobState, start: int = 0, limit: int = 500, *, newest_first: bool = False) -> list[str]:
        """List the ids of a state."""
        ids: dict[str, None] = {}
        cursor = ""
        while True:
            command = list_jobs(self.keys, state, start, limit - len(ids), newest_first=newest_first, cursor=cursor)
            found, cursor = self.call(command)
            ids |= dict.fromkeys(found)
            if not cursor or len(ids) == limit:
                return list(ids)

    def counts(self) -> dict[str, int]:
        """Return the states that have jobs."""
        return {state.value: n for state, n in self.call(count_jobs(self.keys)).items() if n}

    # -- events

    def entries(self) -> list[Entry]:
        """Return the entries of the stream."""
        return [Entry(entry, fields) for entry, fields in (self.column("events") or {}).items()]

    def events(self) -> list[Event]:
        """Return every event on the stream."""
        return [event for entry in self.entries() for event in parse_entry(self.keys.name, entry.fields)]

    def fresh(self) -> list[Event]:
        """Return the events since this was asked last."""
        events = [event for event in self.events() if event.seq > self._seen]
        self._seen = events[-1].seq if events else self._seen
        return events

    def fresh_kinds(self) -> list[str]:
        """Return the kinds of the events since they were asked for last."""
        return [event.kind for event in self.fresh()]


def new(name: str = "job", data: str = "1", *, job_id: str | None = None, trace: str = "", **options: Any) -> NewRecord:
    """Return a job to add, its options compiled as the queue does."""
    compiled = JobOptions(job_id=job_id, **options).compiled
    return NewRecord(
        compiled.job_id or new_id(),
        name,
        trace,
        compiled.header,
        compiled.place,
        compiled.spec,
        data,
        compiled.job_id is not None,
        compiled,
    )


def at_ms(ms: int) -> datetime:
    """Return an absolute time for `at`."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def fragment(job: Claimed) -> str:
    """Return the JSON members that every event of a run begins with, as a worker says them."""
    try:
        name = parse_record(job.record, job.apart).name
    except UnreadableRecord:
        name = "__other__"
    return identity(name, parse_run(job.run).fails + 1 if job.run else 1, WORKER)


def held(job: Claimed) -> Held:
    """Return a run as renewals and releases name it."""
    return Held(job.id, job.token, fragment(job))


ERROR = '{"type":"ValueError","message":"no"}'


def outcome(job: Claimed, word: str = "completed", extra: str | int = "", *, result: str = "") -> Outcome:
    """Return an outcome: completed, failed, exhausted (extra: retention rule), retry and postpone (extra: delay in ms)."""
    if word == "postpone":
        return Outcome(job.id, job.token, word, fragment(job), "", extra or 1)
    if word == "completed":
        facts = f',"result":{result}' if result else ""
        return Outcome(job.id, job.token, word, fragment(job) + facts, result, extra)
    facts = f',"error":{ERROR}'
    if word != "retry":
        facts += f',"reason":"error","exhausted":{"true" if word == "exhausted" else "false"}'
    return Outcome(job.id, job.token, word, fragment(job) + facts, ERROR, extra or (0 if word == "retry" else ""))


def progress(job: Claimed, value: str) -> ProgressUpdate:
    """Return progress of a run; `value` is JSON."""
    return ProgressUpdate(job.id, job.token, fragment(job), value)


def floor(score: float) -> int:
    """Return the ms of a score."""
    return math.floor(score)


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
