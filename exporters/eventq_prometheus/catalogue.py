"""Every metric that eventq exports, once: name, type, unit, labels, buckets, help, where it comes from.

The exporter, the reference page, the alert rules, the dashboards and the tests that lint them are all made from this table.
Names, labels and buckets follow Prometheus' own conventions (https://prometheus.io/docs/practices/naming/): base units, unit
suffix, `_total` on counters; a failure is a metric of its own beside the total, not a value of a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["CATALOGUE", "OVERFLOW", "Kind", "Metric", "Source"]


class Kind(StrEnum):
    """The type a metric has in Prometheus."""

    counter = "counter"
    gauge = "gauge"
    histogram = "histogram"
    info = "info"


class Source(StrEnum):
    """Where a metric's values come from."""

    totals = "the queue's totals, counted event by event and mended from the authoritative column after a loss"
    events = "events; saved with the position, so that they survive the exporter"
    server = "Redis, read at each scrape"
    workers = "what workers report of themselves every few seconds"
    exporter = "the exporter itself, since it started"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `labels` in order; `per_name`: a histogram that has `job_name` too when the exporter is asked for it."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    source: Source
    help: str
    buckets: tuple[float, ...] = ()
    per_name: bool = False

    @property
    def series_names(self) -> tuple[str, ...]:
        """The names its series have in Prometheus."""
        if self.kind is Kind.histogram:
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)

    @property
    def series_labels(self) -> tuple[str, ...]:
        """The labels its series may have."""
        return (*self.labels, *(("job_name",) if self.per_name else ()), *(("le",) if self.kind is Kind.histogram else ()))


#: What a label says in place of the values past its cap.
OVERFLOW: Final = "__other__"

#: Seconds. Jobs wait and run for milliseconds to hours.
WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
RUN_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)
LATE_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
ATTEMPT_BUCKETS: Final = (1, 2, 3, 5, 8, 13, 21)

_QUEUE: Final = ("queue",)
_JOB: Final = ("queue", "job_name")


def _count(name: str, unit: str, labels: tuple[str, ...], source: Source, text: str) -> Metric:
    return Metric(name, Kind.counter, unit, labels, source, text)


def _gauge(name: str, unit: str, labels: tuple[str, ...], source: Source, text: str) -> Metric:
    return Metric(name, Kind.gauge, unit, labels, source, text)


def _jobs(name: str, text: str, source: Source = Source.totals) -> Metric:
    return _count(name, "jobs", _JOB, source, text)


def _spread(
    name: str, buckets: tuple[float, ...], text: str, *labels: str, unit: str = "seconds", per_name: bool = True
) -> Metric:
    return Metric(name, Kind.histogram, unit, ("queue", *labels), Source.events, text, buckets, per_name)


_ALL: Final = (
    # -- jobs
    _jobs("eventq_jobs_added_total", "Jobs that were stored."),
    _jobs("eventq_jobs_duplicated_total", "Adds with an own id that was stored already; nothing was added.", Source.events),
    _jobs("eventq_job_attempts_started_total", "Runs begun: each time a worker claimed a job."),
    _jobs("eventq_job_attempts_failed_total", "Attempts that failed, whether or not the job ran again (retried + failed)."),
    _jobs("eventq_jobs_retried_total", "Attempts that failed and after which the job was to run again."),
    _jobs("eventq_jobs_finished_total", "Jobs that ended, well or badly (completed + failed)."),
    _jobs("eventq_jobs_completed_total", "Jobs that ended well."),
    _jobs("eventq_jobs_failed_total", "Jobs that ended failed, for good."),
    _jobs("eventq_jobs_retries_exhausted_total", "Jobs that ended failed because their attempts were used up."),
    _jobs("eventq_jobs_stalled_total", "Runs whose lease ended without a word from their worker."),
    _jobs("eventq_jobs_released_total", "Runs given back uncounted: by a closing worker, or postponed by the processor."),
    _count(
        "eventq_job_errors_total",
        "attempts",
        ("queue", "job_name", "error_type"),
        Source.events,
        "Failed attempts by type of error: a breakdown for people, not for alerts (its series come and go with the errors).",
    ),
    _jobs("eventq_job_progress_updates_total", "Progress reported by processors.", Source.events),
    _count(
        "eventq_jobs_removed_total",
        "jobs",
        _QUEUE,
        Source.events,
        "Jobs no longer stored: by retention, by hand, by clean or drain.",
    ),
    _count("eventq_jobs_promoted_total", "jobs", _QUEUE, Source.events, "Delayed jobs that came into line."),
    _spread(
        "eventq_job_wait_seconds",
        WAIT_BUCKETS,
        "Seconds from ready to started, per run; an intended delay or backoff is not waiting.",
    ),
    _spread(
        "eventq_job_processing_seconds",
        RUN_BUCKETS,
        "Seconds from started to the end, per attempt; outcome is completed, retried or failed.",
        "outcome",
    ),
    _spread(
        "eventq_job_total_seconds",
        WAIT_BUCKETS,
        "Seconds from first ready to finished, per job: waits, attempts and backoff; an intended delay is left out.",
    ),
    _spread("eventq_job_attempts_per_job", ATTEMPT_BUCKETS, "Attempts a job took until it ended.", unit="attempts"),
    _spread(
        "eventq_delayed_job_lateness_seconds",
        LATE_BUCKETS,
        "Seconds from when a delayed job was due to when it came into line.",
        per_name=False,
    ),
    # -- schedules
    _spread(
        "eventq_scheduler_drift_seconds",
        LATE_BUCKETS,
        "Seconds from a schedule's slot to when its job was added.",
        per_name=False,
    ),
    _gauge(
        "eventq_scheduler_next_run_timestamp_seconds",
        "seconds",
        ("queue", "scheduler"),
        Source.server,
        "When the schedule fires next; of one that is paused or has ended there is no series.",
    ),
    _gauge(
        "eventq_scheduler_last_run_timestamp_seconds",
        "seconds",
        ("queue", "scheduler"),
        Source.server,
        "The slot that the schedule fired last.",
    ),
    _count(
        "eventq_scheduler_missed_runs_total",
        "slots",
        ("queue", "scheduler"),
        Source.events,
        "Slots of a schedule that nobody could fire in time and that its policy does not run later.",
    ),
    # -- the queue now
    _gauge(
        "eventq_queue_jobs",
        "jobs",
        ("queue", "state"),
        Source.server,
        "Jobs in each state: waiting, prioritized, delayed, active, waiting_children, completed, failed; paused are the waiting "
        "jobs of a paused queue.",
    ),
    _gauge(
        "eventq_queue_oldest_job_age_seconds",
        "seconds",
        ("queue", "state"),
        Source.server,
        "Age of the oldest job: in line (waiting, prioritized, paused) since it was ready; active since it started, as workers "
        "reported last; delayed only if overdue, since it was due. 0 when there is none.",
    ),
    _gauge("eventq_queue_paused", "boolean", _QUEUE, Source.server, "1 while the queue is paused."),
    # -- workers
    _gauge("eventq_workers", "workers", _QUEUE, Source.workers, "Workers that are alive."),
    _gauge("eventq_worker_slots", "slots", _QUEUE, Source.workers, "Jobs that all live workers can run at once."),
    _gauge("eventq_worker_slots_busy", "slots", _QUEUE, Source.workers, "Jobs that all live workers run now."),
    _count(
        "eventq_worker_busy_seconds_total",
        "seconds",
        _QUEUE,
        Source.workers,
        "Seconds that slots were in use, of all workers there ever were; its rate by eventq_worker_slots is utilisation.",
    ),
    _count(
        "eventq_worker_leases_lost_total",
        "runs",
        _QUEUE,
        Source.events,
        "Runs that a live worker lost: its renewals came too late.",
    ),
    _count(
        "eventq_worker_errors_total",
        "errors",
        _QUEUE,
        Source.events,
        "Trouble that is no job's failure: lost connections, lost leases, listeners that raised.",
    ),
    _gauge("eventq_worker_up", "boolean", ("queue", "worker"), Source.workers, "1 for each live worker; only with --per-worker."),
    _gauge(
        "eventq_worker_last_heartbeat_timestamp_seconds",
        "seconds",
        ("queue", "worker"),
        Source.workers,
        "When the worker was last heard of; only with --per-worker.",
    ),
    _gauge(
        "eventq_worker_clock_skew_seconds",
        "seconds",
        ("queue", "worker"),
        Source.workers,
        "How far the clock of the worker's machine is ahead of Redis'; only with --per-worker.",
    ),
    Metric(
        "eventq_worker_info",
        Kind.info,
        "info",
        ("queue", "worker", "version", "host", "pid"),
        Source.workers,
        "What a worker is; only with --per-worker.",
    ),
    # -- the event pipeline
    _gauge(
        "eventq_event_stream_length",
        "entries",
        _QUEUE,
        Source.server,
        "Entries kept in the event stream; one holds up to 100 events.",
    ),
    _gauge(
        "eventq_event_stream_retention_seconds",
        "seconds",
        _QUEUE,
        Source.server,
        "Age of the oldest event kept: how long a reader may be away without loss at this rate.",
    ),
    _gauge("eventq_event_lag", "events", _QUEUE, Source.exporter, "Events that the exporter has not read yet."),
    _gauge(
        "eventq_event_lag_seconds",
        "seconds",
        _QUEUE,
        Source.exporter,
        "Age of the oldest event not read yet; 0 when there is none.",
    ),
    _count("eventq_events_processed_total", "events", ("queue", "event"), Source.events, "Events read, by kind."),
    _count(
        "eventq_events_lost_total",
        "events",
        ("queue", "cause"),
        Source.events,
        "Events that nobody can read any more, to the unit: trimmed before they were read, or undecodable. Histograms and "
        "breakdowns lack them; totals do not.",
    ),
    _count(
        "eventq_events_undone_total",
        "events",
        _QUEUE,
        Source.events,
        "Events that were read and that Redis lost afterwards (failover, restart from an older save).",
    ),
    _gauge(
        "eventq_checkpoint_timestamp_seconds",
        "seconds",
        (),
        Source.exporter,
        "When positions and counters were last saved, all together.",
    ),
    _count(
        "eventq_label_overflow_total",
        "events",
        ("label",),
        Source.exporter,
        f"Events whose label value was past its cap and is counted as {OVERFLOW}.",
    ),
    _gauge("eventq_exporter_leader", "boolean", (), Source.exporter, "1 in the process that reads; 0 in one that stands by."),
    _gauge("eventq_exporter_queues", "queues", (), Source.exporter, "Queues that are read."),
    # -- Redis
    _gauge("eventq_redis_ping_seconds", "seconds", (), Source.server, "Round trip to Redis at this scrape."),
    Metric(
        "eventq_redis_command_duration_seconds",
        Kind.histogram,
        "seconds",
        ("command",),
        Source.exporter,
        "Seconds that the exporter's own calls took: ping, observe, save.",
        (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
    ),
    _count(
        "eventq_redis_reconnects_total", "connections", (), Source.exporter, "Connections to Redis that had to be made again."
    ),
    # -- the exporter
    _gauge("eventq_up", "boolean", (), Source.exporter, "1 when Redis answered at this scrape."),
    _gauge(
        "eventq_scrape_duration_seconds",
        "seconds",
        ("collector",),
        Source.exporter,
        "Seconds this scrape took, by part: save, queues.",
    ),
    _gauge(
        "eventq_scrape_collector_success",
        "boolean",
        ("collector",),
        Source.exporter,
        "1 when the part of this scrape was done in time; 0: its values are missing or old.",
    ),
    Metric(
        "eventq_build_info",
        Kind.info,
        "info",
        ("version", "python", "server", "server_version"),
        Source.exporter,
        "What is running.",
    ),
)

#: Every metric by its name, in the order of the reference page.
CATALOGUE: Final[dict[str, Metric]] = {metric.name: metric for metric in _ALL}
