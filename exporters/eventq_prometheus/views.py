"""From what was saved and observed to the samples of a scrape. Pure: no clock, no Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.samples import Exemplar

from eventq_prometheus.catalogue import CATALOGUE, Kind
from eventq_prometheus.spread import Spread, labels_of
from eventq_prometheus.tally import ATTEMPTS, DRIFT, LATENESS, RUN, TOTAL, WAIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from prometheus_client.core import Metric

    from eventq import QueueState
    from eventq_prometheus.saved import Saved
    from eventq_prometheus.spread import LiveSpread

__all__ = ["QueueView", "Sheet", "series_of"]

#: Metric -> the kinds of totals that it is the sum of.
_TOTALS: Final = {
    "eventq_jobs_added_total": ("added",),
    "eventq_job_attempts_started_total": ("starts",),
    "eventq_job_attempts_failed_total": ("retrying", "failed"),
    "eventq_jobs_retried_total": ("retrying",),
    "eventq_jobs_finished_total": ("completed", "failed"),
    "eventq_jobs_completed_total": ("completed",),
    "eventq_jobs_failed_total": ("failed",),
    "eventq_jobs_retries_exhausted_total": ("exhausted",),
    "eventq_jobs_stalled_total": ("stalled",),
    "eventq_jobs_released_total": ("released",),
}
_MORE: Final = {"eventq_jobs_duplicated_total": "duplicated", "eventq_job_progress_updates_total": "progress"}
_PLAIN: Final = {
    "eventq_jobs_removed_total": "removed",
    "eventq_jobs_promoted_total": "promoted",
    "eventq_worker_leases_lost_total": "leases_lost",
    "eventq_worker_errors_total": "worker_errors",
    "eventq_events_undone_total": "undone",
}
_CAUSES: Final = ("trimmed", "undecodable")
_OUTCOMES: Final = ("completed", "retried", "failed")
#: Metric -> the outcomes its histograms are kept by ('' for none).
_SPREADS: Final = {WAIT: ("",), RUN: _OUTCOMES, TOTAL: ("",), ATTEMPTS: ("",), LATENESS: ("",), DRIFT: ("",)}


@dataclass(frozen=True, slots=True)
class QueueView:
    """One queue at one scrape: what was saved of it, how it was observed (None: not in time), how far the reader is."""

    saved: Saved
    spreads: Mapping[tuple[str, str], LiveSpread]
    state: QueueState | None = None
    handled: int = 0


class Sheet:
    """The samples of one scrape. `zeroes`: whether groups of series that no scrape has seen are shown at 0."""

    def __init__(self, *, zeroes: bool, per_worker: bool, by_name: bool) -> None:
        self._zeroes = zeroes
        self._per_worker = per_worker
        self._by_name = by_name
        self._families: dict[str, Metric] = {}
        #: Groups shown at 0, by queue.
        self.unborn: dict[str, set[str]] = {}

    def families(self) -> Iterator[Metric]:
        """Return what was filled in, in the order of the catalogue."""
        for name in CATALOGUE:
            if name in self._families:
                yield self._families[name]

    def set(self, name: str, value: float, *labels: str) -> None:
        """Add one sample of a counter or a gauge."""
        self._family(name).add_metric(list(labels), value)  # type: ignore[attr-defined]

    def info(self, name: str, labels: dict[str, str], *own: str) -> None:
        """Add one sample of an info metric."""
        self._family(name).add_metric(list(own), labels)  # type: ignore[attr-defined]

    def histogram(
        self, name: str, labels: Iterable[str], spread: Spread, live: LiveSpread | None = None, scale: int = 1000
    ) -> None:
        """Add one histogram; `scale`: how many of the units it counts in make one of the metric."""
        metric, below = CATALOGUE[name], 0
        buckets: list[tuple[str, float, Exemplar | None]] = []
        for index, count in enumerate(spread.counts):
            below += count
            bound = repr(float(metric.buckets[index])) if index < len(metric.buckets) else "+Inf"
            buckets.append((bound, below, _exemplar(live, index) if live is not None and live.examples else None))
        self._family(name).add_metric(list(labels), buckets, sum_value=spread.sum / scale)  # type: ignore[attr-defined]

    def queue(self, name: str, view: QueueView) -> None:
        """Add everything about one queue."""
        saved = view.saved
        if view.state is not None:
            for schedule in view.state.schedules:
                if schedule.id not in saved.missed:  # a first miss is to be seen as an increase
                    self.set("eventq_scheduler_missed_runs_total", 0, name, schedule.id)
        self._totals(name, saved)
        self._of_the_queue(name, saved)
        self._spreads(name, view)
        if view.state is not None:
            self._now(name, view.state, view.handled)
            self._workers(name, view.state)

    # -- counters

    def _totals(self, queue: str, saved: Saved) -> None:
        if not saved.is_based:
            return  # what the queue counted before is not known yet: no number is better than a wrong one
        names = {name for counts in (*saved.totals.values(), *saved.more.values()) for name in counts}
        for name in sorted(names):
            shown = self._shown(queue, saved, f"n {name}")
            for metric, kinds in _TOTALS.items():
                value = sum(saved.totals.get(kind, {}).get(name, 0) for kind in kinds) if shown else 0
                self.set(metric, value, queue, name)
            for metric, kind in _MORE.items():
                self.set(metric, saved.more.get(kind, {}).get(name, 0) if shown else 0, queue, name)
        for name, types in saved.errors.items():
            for kind, n in types.items():
                shown = self._shown(queue, saved, f"e {name} {kind}")
                self.set("eventq_job_errors_total", n if shown else 0, queue, name, kind)

    def _of_the_queue(self, queue: str, saved: Saved) -> None:
        shown = self._shown(queue, saved, "q")
        for metric, what in _PLAIN.items():
            self.set(metric, saved.plain.get(what, 0) if shown else 0, queue)
        for cause in _CAUSES:
            self.set("eventq_events_lost_total", saved.plain.get(cause, 0) if shown else 0, queue, cause)
        self.set("eventq_worker_busy_seconds_total", saved.busy_ms / 1000 if shown else 0, queue)
        for schedule, n in saved.missed.items():
            shown = self._shown(queue, saved, f"m {schedule}")
            self.set("eventq_scheduler_missed_runs_total", n if shown else 0, queue, schedule)
        for kind, n in saved.events.items():
            self.set("eventq_events_processed_total", n if self._shown(queue, saved, f"k {kind}") else 0, queue, kind)

    def _spreads(self, queue: str, view: QueueView) -> None:
        names = sorted({name for counts in view.saved.totals.values() for name in counts})
        for metric, outcomes in _SPREADS.items():
            named = self._by_name and CATALOGUE[metric].per_name
            for outcome in outcomes:
                for name in names if named else ("",):
                    key = f"{outcome} {name}" if named else outcome
                    spread = view.saved.spreads.get(metric, {}).get(key)
                    live = view.spreads.get((metric, key))
                    if spread is None or not self._shown(queue, view.saved, f"n {name}" if named else "q"):
                        spread, live = Spread([0] * (len(CATALOGUE[metric].buckets) + 1)), None
                    labels = [queue, *((outcome,) if outcome else ()), *((name,) if named else ())]
                    self.histogram(metric, labels, spread, live)

    def _shown(self, queue: str, saved: Saved, group: str) -> bool:
        """Whether a group of series is shown as it is; if not, it is noted as shown at 0."""
        if not self._zeroes or group in saved.born:
            return True
        self.unborn.setdefault(queue, set()).add(group)
        return False

    # -- gauges

    def _now(self, queue: str, state: QueueState, handled: int) -> None:
        for job_state, n in state.counts.items():
            self.set("eventq_queue_jobs", n, queue, job_state.value)
            if job_state.value in ("waiting", "prioritized", "paused", "delayed", "active"):
                since = state.since_ms.get(job_state)
                age = 0 if since is None else max(0, state.now_ms - since) / 1000
                self.set("eventq_queue_oldest_job_age_seconds", age, queue, job_state.value)
        self.set("eventq_queue_paused", float(state.is_paused), queue)
        for schedule in state.schedules:
            if schedule.next_ms is not None:
                self.set("eventq_scheduler_next_run_timestamp_seconds", schedule.next_ms / 1000, queue, schedule.id)
            if schedule.last_ms is not None:
                self.set("eventq_scheduler_last_run_timestamp_seconds", schedule.last_ms / 1000, queue, schedule.id)
        self.set("eventq_event_stream_length", state.entries, queue)
        oldest = state.now_ms if state.oldest_event_ms is None else state.oldest_event_ms
        self.set("eventq_event_stream_retention_seconds", max(0, state.now_ms - oldest) / 1000, queue)
        lag = max(0, state.seq - handled)
        self.set("eventq_event_lag", lag, queue)
        unread = state.now_ms if state.unread_ms is None or not lag else state.unread_ms
        self.set("eventq_event_lag_seconds", max(0, state.now_ms - unread) / 1000, queue)

    def _workers(self, queue: str, state: QueueState) -> None:
        self.set("eventq_workers", len(state.workers), queue)
        self.set("eventq_worker_slots", sum(worker.slots for worker in state.workers), queue)
        self.set("eventq_worker_slots_busy", sum(worker.busy for worker in state.workers), queue)
        for worker in state.workers if self._per_worker else ():
            self.set("eventq_worker_up", 1, queue, worker.name)
            self.set("eventq_worker_last_heartbeat_timestamp_seconds", worker.seen_ms / 1000, queue, worker.name)
            self.set("eventq_worker_clock_skew_seconds", (worker.clock_ms - worker.seen_ms) / 1000, queue, worker.name)
            said = {key: str(worker.facts.get(key, "")) for key in ("version", "host", "pid")}
            self.info("eventq_worker_info", said, queue, worker.name)

    def _family(self, name: str) -> Metric:
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = _new(name, self._by_name)
        return family


def _new(name: str, by_name: bool) -> Metric:
    metric = CATALOGUE[name]
    if metric.kind is Kind.counter:
        return CounterMetricFamily(name.removesuffix("_total"), metric.help, labels=list(metric.labels))
    if metric.kind is Kind.histogram:
        labels = [*metric.labels, *(("job_name",) if by_name and metric.per_name else ())]
        return HistogramMetricFamily(name, metric.help, labels=labels)
    if metric.kind is Kind.info:
        own = [label for label in metric.labels if label in ("queue", "worker")]
        return InfoMetricFamily(name.removesuffix("_info"), metric.help, labels=own)
    return GaugeMetricFamily(name, metric.help, labels=list(metric.labels))


def _exemplar(live: LiveSpread, bucket: int) -> Exemplar | None:
    example = live.examples.get(bucket)
    labels = labels_of(example[0]) if example is not None else None
    return Exemplar(labels, example[1] / 1000, example[2] / 1000) if example is not None and labels else None


def series_of(by_name: bool) -> tuple[int, int]:
    """Return how many series a queue has, and how many more a job name."""
    per_queue = per_name = 0
    for metric in CATALOGUE.values():
        size = (len(metric.buckets) + 3 if metric.buckets else 1) * (3 if "outcome" in metric.labels else 1)
        size *= 8 if "state" in metric.labels else 1
        if "job_name" in metric.labels or (by_name and metric.per_name):
            per_name += size
        elif "queue" in metric.labels and "worker" not in metric.labels and "scheduler" not in metric.labels:
            per_queue += size
    return per_queue, per_name
