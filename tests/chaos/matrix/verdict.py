"""What became of the promises in a scene: the checker's report, and what exporter and tracer told, held against it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ...exporters.scrapes import Series, fetch, read, total
from ..checker import Report, check
from ..ledger import CountedLost, Seen, Started
from ..stored import Stored, read_stored
from .scene import READER, is_expected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .scene import Scene

#: The exporter's totals, and the field of `totals` that says the same.
TOTALS: Final = {
    "eventq_jobs_added_total": "added",
    "eventq_job_attempts_started_total": "starts",
    "eventq_jobs_completed_total": "completed",
    "eventq_jobs_failed_total": "failed",
    "eventq_jobs_retried_total": "retrying",
    "eventq_jobs_stalled_total": "stalled",
    "eventq_jobs_released_total": "released",
    "eventq_jobs_retries_exhausted_total": "exhausted",
}
#: Seconds that readers may take to be where the queue is.
CATCHES_UP: Final = 20.0


@dataclass
class Verdict:
    """The figures of one scene, and what is wrong."""

    faults: list[str]
    seed: int
    server: str
    persistence: str
    strikes: int = 0
    jobs: int = 0
    runs: int = 0
    lost: int = 0
    #: Lost, and nobody was told that anything was.
    lost_untold: int = 0
    stuck: int = 0
    double_outcomes: int = 0
    extra_runs: int = 0
    overlapping: int = 0
    stalls: int = 0
    stale_offered: int = 0
    stale_accepted: int = 0
    events: int = 0
    counted_lost: int = 0
    uncounted: int = 0
    spans: int = 0
    spans_missing: int = 0
    totals_wrong: int = 0
    recoveries: list[float] = field(default_factory=list)
    resumed: float = 0.0
    drained: float = 0.0
    seconds: float = 0.0
    problems: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        slowest = f"{max(self.recoveries):.2f}" if self.recoveries else "-"
        return (
            f"{' + '.join(self.faults)} ({self.server}, {self.persistence}, SEED={self.seed}): {self.jobs} jobs, {self.runs} runs, "
            f"lost {self.lost}, stuck {self.stuck}, double outcomes {self.double_outcomes}, stale {self.stale_accepted} of "
            f"{self.stale_offered}, events {self.events} (counted lost {self.counted_lost}, uncounted {self.uncounted}), spans missing "
            f"{self.spans_missing} of {self.spans}, totals wrong {self.totals_wrong}, slowest recovery {slowest} s, resumed after "
            f"{self.resumed:.2f} s, drained after {self.drained:.1f} s, {self.seconds:.1f} s"
        )


def fill_in(verdict: Verdict, scene: Scene, stored: Stored, report: Report) -> None:
    """Take over the figures of the report."""
    verdict.strikes = scene.strikes
    verdict.jobs = report.acknowledged
    verdict.runs = sum(event.kind == "active" for event in stored.events)
    verdict.stalls = sum(event.kind == "stalled" for event in stored.events)
    for name in ("lost", "stuck", "double_outcomes", "overlapping", "stale_accepted", "uncounted"):
        setattr(verdict, name, len(getattr(report, name)))
    verdict.extra_runs, verdict.stale_offered = report.extra_runs, report.stale_offered
    verdict.events, verdict.counted_lost = report.events_seen, report.counted_lost
    verdict.recoveries = [round(seconds, 3) for seconds in report.recoveries]
    verdict.resumed, verdict.drained = resumed(scene), scene.drained_after


async def judge(scene: Scene, verdict: Verdict) -> None:
    """Let readers catch up, take stock, and say what is wrong. The queue is drained, its workers have ended."""
    lossy, trims = scene.is_lossy, any(fault.trims for fault in scene.faults)
    with scene.client() as client:
        stored = read_stored(client, scene.queue)
        await caught_up(scene, stored)
        samples = await exported(scene, stored)
        spans = [] if lossy else await traced(scene, stored)
        report = check(scene.ledger, client, scene.queue)
    fill_in(verdict, scene, stored, report)
    problems = dict(wrong(report, scene, lossy=lossy, trims=trims))
    # A reader that died meanwhile took along what it knew, and the server what was saved of it.
    if report.lost and not scene.tail.of(CountedLost) and not any(fault.number == 58 for fault in scene.faults):
        verdict.lost_untold = len(report.lost)
        problems["told of no loss"] = list(report.lost)[:10]
    if report.lost and any(fault.confirmed for fault in scene.faults):
        problems["confirmed and lost"] = list(report.lost)[:10]
    if verdict.stalls and not scene.halts_again and not any(fault.stalls for fault in scene.faults):
        problems["taken from live workers"] = verdict.stalls
    if not lossy:
        verdict.spans, missing, twice = compare_spans(stored, spans)
        verdict.spans_missing = len(missing)
        if twice:
            problems["spans differ"] = twice
        if missing and not trims:
            problems["spans missing"] = missing
    if differences := compare_totals(scene, stored, samples):
        verdict.totals_wrong = len(differences)
        problems["exported totals"] = differences
    if failures := [
        f"{actor}: {actor.failure}" for actor in scene.crew.actors if actor.failure and not is_expected(actor.failure)
    ]:
        problems["processes failed"] = failures
    verdict.problems = problems


def wrong(report: Report, scene: Scene, *, lossy: bool, trims: bool) -> Mapping[str, Any]:
    """Return what must be empty and is not, as far as the faults do not bring it about."""
    tolerated = {name for fault in scene.faults for name in fault.tolerates}
    if lossy:  # what was undone runs again, and what was told of it may be told again
        tolerated |= {"lost", "overlapping", "added_twice", "double_outcomes", "revived", "unearned", "miscounted"}
        tolerated |= {"uncounted", "overcounted", "wrong_totals", "stream_gaps"}
    problems: dict[str, Any] = {name: list(value)[:10] for name, value in report.problems(tolerating=tolerated).items()}
    if not lossy and not trims and report.counted_lost:
        problems["counted lost"] = report.counted_lost
    return problems


# --- readers ----------------------------------------------------------------------------------------------------------


async def caught_up(scene: Scene, stored: Stored) -> None:
    """Wait until the reader has seen the last event; the report says what it did not."""
    until = time.monotonic() + CATCHES_UP
    last = max((event.seq for event in stored.events), default=0)
    while time.monotonic() < until:
        if any(line.seq == last and line.reader == READER for line in scene.tail.of(Seen)):
            return
        await asyncio.sleep(0.05)  # sleep-ok: another process gives no news


async def exported(scene: Scene, stored: Stored) -> Mapping[Series, float]:
    """Scrape until what is shown is what is stored; return the last scrape, whatever it showed."""
    until = time.monotonic() + CATCHES_UP
    samples: Mapping[Series, float] = {}
    while time.monotonic() < until:
        try:
            status, _, body = await asyncio.to_thread(fetch, scene.exporter_port)
        except OSError:
            status, body = 0, b""
        if status == 200:
            samples = read(body.decode())
            if not compare_totals(scene, stored, samples):
                break
        await asyncio.sleep(0.1)  # sleep-ok: an exporter gives no news but when it is asked
    return samples


def compare_totals(scene: Scene, stored: Stored, samples: Mapping[Series, float]) -> list[str]:
    """Return where what is exported differs from what was counted; what was undone stays counted, as it did happen."""
    counted: Counter[str] = Counter()
    for name, number in stored.totals.items():
        counted[name.partition(" ")[0]] += number
    return [
        f"{metric}: exported {shown:.0f}, counted {counted[column]}"
        for metric, column in TOTALS.items()
        if (shown := total(samples, metric, queue=scene.queue)) != counted[column]
        and not (scene.is_lossy and shown > counted[column])
    ]


def runs_of(stored: Stored) -> set[tuple[str, int]]:
    """Return every run there was: job and number, which is that of the event that began it."""
    return {(event.job_ids[0], event.seq) for event in stored.events if event.kind == "active"}


def read_spans(scene: Scene) -> list[list[Any]]:
    """Return what the tracer wrote: job, run, outcome, operation, span id. The last line of a killed one may be cut short."""
    if not scene.spans.exists():
        return []
    found: list[list[Any]] = []
    for line in scene.spans.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


async def traced(scene: Scene, stored: Stored) -> list[list[Any]]:
    """Wait until there is a span for every run; return what there is."""
    until = time.monotonic() + CATCHES_UP
    while True:
        spans = read_spans(scene)
        if not compare_spans(stored, spans)[1] or time.monotonic() > until:
            return spans
        await asyncio.sleep(0.1)  # sleep-ok: another process gives no news


def compare_spans(stored: Stored, spans: list[list[Any]]) -> tuple[int, list[str], list[str]]:
    """Return how many runs there were, which have no span, and which have two that differ."""
    runs = runs_of(stored)
    found: dict[tuple[str, int], set[str]] = {}
    for job_id, run, outcome, operation, span_id in spans:
        if operation == "process":
            found.setdefault((job_id, int(run)), set()).add(f"{outcome} {span_id}")
    missing = [f"{job_id} run {run}" for job_id, run in sorted(runs - found.keys())]
    return len(runs), missing[:10], [f"{key}: {sorted(each)}" for key, each in found.items() if len(each) > 1][:10]


# --- how soon ---------------------------------------------------------------------------------------------------------


def resumed(scene: Scene) -> float:
    """Return how many seconds after the last fault was over a job was started again; 0 where none was left."""
    after = [line.ns for line in scene.tail.of(Started) if line.ns > scene.healed_ns]
    return (min(after) - scene.healed_ns) / 1e9 if after else 0.0
