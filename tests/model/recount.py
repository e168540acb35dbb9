"""Everything that is stored of a queue, read in one round trip and counted again, the events as they come in."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from eventq.client.wire import pack
from eventq.commands.read import count_jobs
from eventq.events import (
    ActiveEvent,
    CleanedEvent,
    Event,
    FailedEvent,
    JobEvent,
    ObliteratedEvent,
    RemovedEvent,
    parse_entry,
)
from eventq.limits import INLINE_DATA_BYTES
from eventq.records import StoredJob, parse_stored
from eventq.states import IN_LINE, TRANSITIONS, JobState

from ..lua.invariants import _moves, _run_kind, _state, _total_kinds, check_columns
from ..lua.lab import NO_LEASE, Lab, floor

if TYPE_CHECKING:
    from .managed import ManagedModel

HASHES = ("meta", "calls", "jobs", "data", "runs", "results", "progress", "logs", "totals")
SETS = ("prioritized", "delayed", "leases", "waiting_children", "completed", "failed", "timers", "marker")
#: Jobs that no rule of the queue reaches stand above it.
PINNED = 1 << 50


class Recount:
    """Reads a queue and checks it, by itself and against the model."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.stored: dict[str, Any] = {}
        self.jobs: dict[str, StoredJob] = {}
        #: job id -> the event of its latest claim; its seq is the run's fence.
        self.active: dict[str, ActiveEvent] = {}
        self.kinds: Counter[str] = Counter()
        self._count = count_jobs(lab.keys)
        self.counts: dict[JobState, int] = {}
        words: list[tuple[str | int, ...]] = [
            ("MULTI",),
            *[("HGETALL", lab.keys[column]) for column in HASHES],
            *[("ZRANGE", lab.keys[column], 0, -1, "WITHSCORES") for column in SETS],
            ("LRANGE", lab.keys["wait"], 0, -1),
            tuple(self._count.words("", 0)),
        ]
        lab.call(self._count)  # so that its script is loaded
        #: Every reading begins with this.
        self._columns = b"".join(pack(each) for each in words)
        self._entry = "-"
        self._begin()

    def _begin(self) -> None:
        """Begin to count: of a new queue, or of one that was obliterated."""
        self.epoch = ""
        self.active.clear()
        self._seq = 0
        self._bytes = 0
        self._at: dict[str, JobState] = {}
        self._runs: dict[str, Counter[str]] = defaultdict(Counter)
        self._totals: Counter[str] = Counter()
        self._stalled_for_good = 0
        #: How many were removed as cleaned, less how many an event says were cleaned.
        self._uncleaned = 0

    def read(self) -> None:
        """Read every column and the new events, as one moment of the server."""
        keys, connection = self.lab.keys, self.lab._connection
        start = self._entry if self._entry == "-" else f"({self._entry}"
        connection.send_packed_command([self._columns + pack(("XRANGE", keys["events"], start, "+")) + pack(("EXEC",))])
        for _ in ("MULTI", *HASHES, *SETS, "wait", "counts", "events"):
            connection.read_response()
        *flats, wait, counts, entries = connection.read_response()
        stored: dict[str, Any] = {}
        for column, flat in zip((*HASHES, *SETS), flats, strict=True):
            values = flat[1::2] if column in HASHES else [float(score) for score in flat[1::2]]
            stored[column] = dict(zip(flat[::2], values, strict=True))
        stored["wait"] = wait
        self.counts = self._count.read(counts)
        self.stored = stored
        self.jobs = {job.id: job for job in map(self._job, stored["jobs"]) if job is not None}
        self._read_events(entries)

    def now(self, writer: str) -> int:
        """Return when the last call of this writer ran, by the server's clock."""
        return int(self.stored["calls"][writer].split(" ", 2)[1])

    def check(self, model: ManagedModel) -> None:
        """Check the counts, and that the queue is as the model says."""
        check_columns(self.stored, self.jobs, self.counts)
        self._check_history()
        self._check_totals()
        self._compare(model)

    def _job(self, job_id: str) -> StoredJob | None:
        stored = self.stored
        columns = [stored[column].get(job_id) for column in ("jobs", "runs", "data", "results", "progress")]
        return parse_stored(False, [job_id, *columns])

    def _read_events(self, entries: list[tuple[str, list[str]]]) -> None:
        """Take new entries: numbered without gaps, every move a legal one, their bytes as they say."""
        for self._entry, flat in entries:
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            for event in parse_entry(self.lab.keys.name, fields):
                self._seq += 1
                assert self._seq == event.seq, "seq rises by one with every event"
                self._take(event)
            self.kinds[fields["kind"]] += int(fields["n"])
            self._bytes += len(fields["events"].encode())
            assert self._bytes == int(fields["bytes"])
            if fields["kind"] == ObliteratedEvent.kind:
                self._begin()
        said = self.stored["meta"]
        assert (self._seq, self._bytes) == (int(said.get("seq", 0)), int(said.get("event_bytes", 0)))
        assert self._uncleaned == 0
        assert self.epoch in ("", said.get("epoch")), "an epoch is for good"
        self.epoch = said.get("epoch", "")

    def _take(self, event: Event) -> None:
        for job_id, after in _moves(event):
            before = self._at.get(job_id)
            assert after in TRANSITIONS.get((before, event.kind), ()), f"{job_id}: {before} -> {event.kind} -> {after}"
            assert getattr(event, "previous", "") in ("", before), f"{event}, and it was {before}"
            if after is None:
                del self._at[job_id]
                self._runs.pop(job_id, None)
            else:
                self._at[job_id] = after
                self._runs[job_id][_run_kind(event)] += 1
        if isinstance(event, RemovedEvent):
            self._uncleaned += len(event.job_ids) * (event.reason == "cleaned")
        elif isinstance(event, CleanedEvent):
            self._uncleaned -= event.count
        elif isinstance(event, ObliteratedEvent):
            assert event.count == len(self._at)
        elif isinstance(event, ActiveEvent):
            self.active[event.job_id] = event
        for kind in _total_kinds(event):
            self._totals[f"{kind} {event.name if isinstance(event, JobEvent) else ''}"] += 1
        self._stalled_for_good += isinstance(event, FailedEvent) and event.reason == "stalled"

    def _check_history(self) -> None:
        """Each job stands where its events led it, and its starts are what became of them plus what runs."""
        assert self._at == {job_id: _state(job) for job_id, job in self.jobs.items()}
        for job_id, job in self.jobs.items():
            seen = self._runs[job_id]
            ended = seen["completed"] + seen["failed"] + seen["retrying"] + seen["stalled"] + seen["released"]
            assert seen["active"] == ended + (job.state is JobState.ACTIVE), f"{job_id}: {seen}"
            assert (seen["active"], seen["released"]) == (job.run.starts, job.run.releases)

    def _check_totals(self) -> None:
        """The totals are the recount of all events: starts = completions + fails + stalls + releases + running."""
        assert self._totals == {field: int(count) for field, count in self.stored["totals"].items()}
        kinds: Counter[str] = Counter()
        for field, count in self._totals.items():
            kinds[field.partition(" ")[0]] += count
        running = sum(job.state is JobState.ACTIVE for job in self.jobs.values())
        fails = kinds["retrying"] + kinds["failed"] - self._stalled_for_good
        assert kinds["starts"] == kinds["completed"] + fails + kinds["stalled"] + kinds["released"] + running

    def _compare(self, model: ManagedModel) -> None:
        """Every job, every place in line, every deadline and every writer's number is as the model has it."""
        stored = self.stored
        assert {job.id: (job.state, job.token, *job.counters) for job in model.jobs.values()} == {
            job.id: (job.state, job.run.token, job.run.starts, job.run.fails, job.run.stalls, job.run.releases)
            for job in self.jobs.values()
        }
        assert model.line == stored["wait"]
        assert [(job.id, _score(job.rank)) for job in model.of(JobState.PRIORITIZED, lambda job: job.place)] == [
            *stored["prioritized"].items()
        ]
        assert [(job.id, job.due[0]) for job in model.of(JobState.DELAYED, lambda job: job.due)] == [
            (job_id, floor(score)) for job_id, score in stored["delayed"].items()
        ]
        deadlines = {job_id: score for job_id, score in stored["leases"].items() if job_id != NO_LEASE}
        assert {job.id: job.lease_ends for job in model.jobs.values() if job.state is JobState.ACTIVE} == deadlines
        for state in (JobState.COMPLETED, JobState.FAILED):
            finished = {job.id: job.finished + PINNED * job.is_pinned for job in model.jobs.values() if job.state is state}
            assert finished == stored[state.value]
        assert {job.id: job.result for job in model.jobs.values() if job.result} == stored["results"]
        assert {job.id: job.progress for job in model.jobs.values() if job.progress} == stored["progress"]
        self._compare_records(model)
        self._compare_meta(model)

    def _compare_records(self, model: ManagedModel) -> None:
        """A job's record, its place, its data and its log are as the model has them."""
        stored = self.stored
        assert {job.id: (job.priority, job.lifo, job.data) for job in model.jobs.values()} == {
            job.id: (job.record.priority, "l" in job.record.flags, job.record.data) for job in self.jobs.values()
        }
        # A place, once it is known, is kept whatever the job goes through.
        moved = [job for job in model.jobs.values() if not job.is_fresh]
        assert {job.id: (job.ready, f"{_score(job.rank):.0f}" if job.rank else "-") for job in moved} == {
            job_id: (self.jobs[job_id].run.ready_ms, self.jobs[job_id].run.place) for job_id in stored["runs"]
        }
        apart = {job.id: job.data for job in model.jobs.values() if len(job.data) > INLINE_DATA_BYTES}
        assert apart == stored["data"]
        assert apart.keys() == {job.id for job in self.jobs.values() if "d" in job.record.flags}
        logs = {job.id: "\n".join([str(job.logged), *job.log]) for job in model.jobs.values() if job.log}
        assert logs == stored["logs"]

    def _compare_meta(self, model: ManagedModel) -> None:
        stored = self.stored
        assert not model.is_due_told or "due" in stored["marker"], "a worker may sleep past a job that is due before all others"
        assert model.paused == (stored["meta"].get("paused") == "1")
        assert {writer: number for writer, (number, _) in model.calls.items()} == {
            writer: int(text.partition(" ")[0]) for writer, text in stored["calls"].items()
        }
        timers = {f"keep {job.id}": job.expires for job in model.jobs.values() if job.expires}
        assert timers == {timer: at for timer, at in stored["timers"].items() if timer.startswith("keep ")}
        assert {f"call {writer}" for writer in model.calls} == stored["timers"].keys() - timers.keys()
        in_line = any(job.state in IN_LINE for job in model.jobs.values())
        if in_line and not model.paused:
            is_told = bool(stored["marker"].keys() - {"due"})
            assert model.is_told == is_told, "work in line: nobody would be woken, or a worker for what it has just passed over"


def _score(rank: tuple[int, int] | None) -> float:
    """Return the score of a place: priority * 2**32 + a counter."""
    assert rank
    return float(rank[0] * 2**32 + rank[1])
