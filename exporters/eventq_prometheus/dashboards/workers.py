"""Dashboard C: workers. Are there enough of them, are they busy, and do they lose jobs?"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.dashboards.model import Dashboard, Json, Row, Target
from eventq_prometheus.dashboards.panels import NAMED_BY_QUEUE, limits, mapped, stat, state_timeline, time_series
from eventq_prometheus.dashboards.query import BACKLOG, QUEUE, aggregated, grown, rate, series, utilisation
from eventq_prometheus.dashboards.shared import (
    NONE_IS_BAD,
    SATURATED,
    SOME_IS_WORTH_A_LOOK,
    UTILISATION_LIMITS,
    annotation,
    dashboard,
)
from eventq_prometheus.dashboards.tables import Column, Label, table

__all__ = ["PER_WORKER", "WORKERS"]

_WORKER: Final = (*QUEUE, "worker")
#: How long a worker may be silent: it reports every few seconds.
_SILENT_SECONDS: Final = 30
_SKEW_SECONDS: Final = 5


def _sum(name: str, *labels: str) -> str:
    return aggregated("sum", labels, series(name))


def _bars(name: str) -> Target:
    return Target(aggregated("sum", QUEUE, f"increase({series(name)}[$__rate_interval])"), NAMED_BY_QUEUE)


_NOW: Final = Row(
    "Now",
    (
        stat("Workers", "Workers that are alive.", _sum("eventq_workers"), "short", thresholds=NONE_IS_BAD, width=4),
        stat("Slots", "Jobs that all live workers can run at once.", _sum("eventq_worker_slots"), "short", width=4),
        stat("Slots in use", "Jobs that all live workers run now.", _sum("eventq_worker_slots_busy"), "short", width=4),
        stat(
            "Utilisation",
            "Share of all slots that is in use, from the seconds they were in use: short jobs between two scrapes count too.",
            utilisation(),
            "percentunit",
            thresholds=UTILISATION_LIMITS,
            empty="no workers",
            width=4,
        ),
        stat(
            "Leases lost",
            "Runs in the time shown that a live worker lost, as it renewed too late. Such a job runs twice.",
            aggregated("sum", (), grown("eventq_worker_leases_lost_total")),
            "short",
            thresholds=SOME_IS_WORTH_A_LOOK,
            instant=True,
            decimals=0,
            width=4,
        ),
        stat(
            "Worker errors",
            "Trouble in the time shown that is no job's failure: lost connections, lost leases, listeners that raised.",
            aggregated("sum", (), grown("eventq_worker_errors_total")),
            "short",
            thresholds=SOME_IS_WORTH_A_LOOK,
            instant=True,
            decimals=0,
            width=4,
        ),
    ),
)

_CAPACITY: Final = Row(
    "Capacity",
    (
        time_series(
            "Utilisation by queue",
            f"Share of the slots in use. Above the last dashed line, {SATURATED:.0%}, jobs begin to wait: add workers.",
            (Target(utilisation(*QUEUE), NAMED_BY_QUEUE),),
            "percentunit",
            thresholds=UTILISATION_LIMITS,
            most=1,
            width=12,
        ),
        time_series(
            "Slots in use and capacity",
            "Jobs that run, those that could run, and those in line. A backlog beside free slots: "
            "they belong to workers of another queue.",
            (
                Target(_sum("eventq_worker_slots"), "capacity"),
                Target(_sum("eventq_worker_slots_busy"), "in use"),
                Target(aggregated("sum", (), series("eventq_queue_jobs", BACKLOG)), "backlog"),
            ),
            "short",
            stepped=True,
            width=12,
        ),
        time_series(
            "Workers by queue",
            "Workers that are alive.",
            (Target(_sum("eventq_workers", *QUEUE), NAMED_BY_QUEUE),),
            "short",
            stacked=True,
            stepped=True,
        ),
        time_series(
            "Slots by queue",
            "Jobs that a queue's live workers can run at once.",
            (Target(_sum("eventq_worker_slots", *QUEUE), NAMED_BY_QUEUE),),
            "short",
            stacked=True,
            stepped=True,
        ),
        time_series(
            "Runs started by queue",
            "Runs per second that workers began.",
            (Target(aggregated("sum", QUEUE, rate("eventq_job_attempts_started_total")), NAMED_BY_QUEUE),),
            "ops",
            stacked=True,
        ),
    ),
)

_TROUBLE: Final = Row(
    "Trouble",
    (
        time_series(
            "Leases lost by queue",
            "Runs that a live worker lost: its renewals came too late, as something blocks its event loop or Redis was away.",
            (_bars("eventq_worker_leases_lost_total"),),
            "short",
            bars=True,
            stacked=True,
            width=6,
        ),
        time_series(
            "Stalled runs by queue",
            "Runs whose lease ended without a word from their worker: it crashed, was killed, or lost the network.",
            (_bars("eventq_jobs_stalled_total"),),
            "short",
            bars=True,
            stacked=True,
            width=6,
        ),
        time_series(
            "Released runs by queue",
            "Runs given back uncounted: by a closing worker, or postponed by the processor. Many at once: workers restart.",
            (_bars("eventq_jobs_released_total"),),
            "short",
            bars=True,
            stacked=True,
            width=6,
        ),
        time_series(
            "Worker errors by queue",
            "Trouble that is no job's failure: lost connections, lost leases, listeners that raised.",
            (_bars("eventq_worker_errors_total"),),
            "short",
            bars=True,
            stacked=True,
            width=6,
        ),
    ),
)

_INFO: Final = (*_WORKER, "host", "version", "pid")
_HEARD: Final = aggregated("max", _WORKER, series("eventq_worker_last_heartbeat_timestamp_seconds"))
_SKEW: Final = aggregated("max", _WORKER, series("eventq_worker_clock_skew_seconds"))

#: What there is of single workers: the exporter tells it when it is asked to.
PER_WORKER: Final = Row(
    "Single workers (only if the exporter runs with --per-worker)",
    (
        table(
            "Live workers",
            "A row for each live worker. Clock ahead: how far its machine's clock is ahead of Redis'. Needs --per-worker.",
            (
                Label("namespace", "Namespace"),
                Label("queue", "Queue"),
                Label("worker", "Worker"),
                Label("host", "Host"),
                Label("pid", "Process"),
                Label("version", "Version"),
            ),
            (
                Column("Known", aggregated("max", _INFO, series("eventq_worker_info")), hidden=True),
                Column(
                    "Last heard of",
                    f"time() - {_HEARD}",
                    "s",
                    limits((_SILENT_SECONDS, "red")),
                    decimals=1,
                ),
                Column(
                    "Clock ahead",
                    _SKEW,
                    "s",
                    limits((-_SKEW_SECONDS, "green"), (_SKEW_SECONDS, "orange"), start="orange"),
                    decimals=3,
                ),
            ),
            sort_by="Last heard of",
            empty="no live worker, or no --per-worker",
        ),
        state_timeline(
            "Worker up",
            "When each worker was alive. A bar that ends: the worker was closed or died. Needs --per-worker.",
            Target(aggregated("max", _WORKER, series("eventq_worker_up")), "{{worker}} {{queue}}"),
            mapped({"1": ("up", "green")}),
            width=12,
            height=8,
        ),
        time_series(
            "Workers by version",
            "Live workers by the version of eventq they run: what a deployment looks like. Needs --per-worker.",
            (Target(aggregated("count", ("version",), series("eventq_worker_info")), "{{version}}"),),
            "short",
            stacked=True,
            stepped=True,
            width=12,
        ),
        time_series(
            "Clock ahead of Redis",
            "How far the clock of each worker's machine is ahead. Only its logs are wrong by that much: eventq goes by Redis' "
            "clock. Needs --per-worker.",
            (Target(_SKEW, "{{worker}}"),),
            "s",
            signed=True,
            width=12,
        ),
        time_series(
            "Silence of workers",
            "Seconds since each worker was last heard of. Needs --per-worker.",
            (Target(f"time() - {_HEARD}", "{{worker}}"),),
            "s",
            thresholds=limits((_SILENT_SECONDS, "red")),
            width=12,
        ),
    ),
    collapsed=True,
)

_VERSIONS: Final = (*QUEUE, "version")
_RUN_BY: Final = aggregated("count", _VERSIONS, series("eventq_worker_info"))
_RAN_BY: Final = aggregated("count", _VERSIONS, f"{series('eventq_worker_info')} offset 10m")
_DEPLOYED: Final[Json] = annotation(
    "New versions of workers",
    f"{_RUN_BY} unless {_RAN_BY}",
    "eventq {{version}}",
    "workers of {{queue}} run a version that none of them ran 10 minutes before",
    tags="namespace,queue",
    color="blue",
)

#: The dashboard.
WORKERS: Final[Dashboard] = dashboard(
    "eventq-workers",
    "Workers",
    "Whether there are enough workers, whether they are busy, and whether they lose jobs.",
    (_NOW, _CAPACITY, _TROUBLE, PER_WORKER),
    annotations=(_DEPLOYED,),
)
