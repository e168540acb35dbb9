"""Dashboard A: all queues at once. Is anything wrong, and with which queue?"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.dashboards.model import Dashboard, Row, Target
from eventq_prometheus.dashboards.panels import (
    NAMED_BY_QUEUE,
    bar_gauge,
    limits,
    mapped,
    quantiles,
    stat,
    state_timeline,
    time_series,
)
from eventq_prometheus.dashboards.query import (
    ALERTS,
    BACKLOG,
    QUEUE,
    aggregated,
    drain_seconds,
    failed_share,
    quantile,
    rate,
    series,
    utilisation,
)
from eventq_prometheus.dashboards.shared import (
    AGE_LIMITS,
    DRAIN_LIMITS,
    ERROR_BUDGET,
    FAILED_LIMITS,
    LATE_SECONDS,
    NONE_IS_BAD,
    SOME_IS_BAD,
    UTILISATION_LIMITS,
    dashboard,
)
from eventq_prometheus.dashboards.tables import Column, Label, table

__all__ = ["FLEET"]

_BACKLOG: Final = series("eventq_queue_jobs", BACKLOG)
_OLDEST: Final = series("eventq_queue_oldest_job_age_seconds", BACKLOG)
#: Every queue there is, as 0: what keeps a queue in the table that a column has nothing to say of.
_EVERY: Final = f"0 * {aggregated('max', QUEUE, series('eventq_queue_paused'))}"
_DETAIL: Final = (
    "/d/eventq-queue?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${namespace:queryparam}"
    "&var-queue=${__value.raw}"
)

_NOW: Final = Row(
    "Now",
    (
        stat(
            "Failed jobs",
            f"Share of the jobs that ended in the time shown and ended failed, for good. Orange from {ERROR_BUDGET:.0%} on.",
            failed_share(),
            "percentunit",
            thresholds=FAILED_LIMITS,
            instant=True,
            empty="no jobs",
            decimals=2,
        ),
        stat(
            "Oldest job in line",
            "How long the job that has waited longest in any queue has been ready. This is what users feel.",
            aggregated("max", (), _OLDEST),
            "s",
            thresholds=AGE_LIMITS,
        ),
        stat("Backlog", "Jobs that a worker could take now.", aggregated("sum", (), _BACKLOG), "short"),
        stat("Running", "Jobs that run now.", aggregated("sum", (), series("eventq_queue_jobs", 'state="active"')), "short"),
        stat(
            "Throughput",
            "Jobs that end per second, well or badly.",
            aggregated("sum", (), rate("eventq_jobs_finished_total")),
            "ops",
        ),
        stat(
            "Workers", "Workers that are alive.", aggregated("sum", (), series("eventq_workers")), "short", thresholds=NONE_IS_BAD
        ),
        stat(
            "Utilisation",
            "Share of all workers' slots that is in use. From 95 % on jobs begin to wait.",
            utilisation(),
            "percentunit",
            thresholds=UTILISATION_LIMITS,
            empty="no workers",
        ),
        stat(
            "Firing alerts",
            "Alerts of eventq that fire for the queues chosen, or for no queue in particular.",
            f"count({ALERTS}) or vector(0)",
            "short",
            thresholds=SOME_IS_BAD,
        ),
    ),
)

_PAUSED: Final = f"3 * ({aggregated('max', QUEUE, series('eventq_queue_paused'))} == 1)"
_NO_WORKERS: Final = (
    f"2 * (({aggregated('sum', QUEUE, _BACKLOG)} > bool 0) == 1 "
    f"unless on (namespace, queue) {aggregated('sum', QUEUE, series('eventq_workers'))} > 0)"
)
_LATE: Final = f"{aggregated('max', QUEUE, _OLDEST)} > bool {LATE_SECONDS}"

_QUEUES: Final = Row(
    "Queues",
    (
        state_timeline(
            "Status of queues",
            "No workers: jobs wait and no worker is alive. Late: the oldest job in line waits longer than "
            f"{LATE_SECONDS // 60} minutes. The worst that is true is shown; paused hides the others.",
            Target(f"{_PAUSED} or {_NO_WORKERS} or {_LATE}", NAMED_BY_QUEUE),
            mapped(
                {"0": ("ok", "green"), "1": ("late", "orange"), "2": ("no workers", "red"), "3": ("paused", "purple")},
            ),
        ),
        table(
            "Queues",
            "A row for each queue, the one with the oldest job first. The queue's name leads to its own dashboard. "
            "To drain: how long the backlog takes at the rate of now.",
            (Label("namespace", "Namespace"), Label("queue", "Queue", _DETAIL, "Queue detail")),
            (
                Column("Oldest in line", f"{aggregated('max', QUEUE, _OLDEST)} or {_EVERY}", "s", AGE_LIMITS),
                Column("Backlog", f"{aggregated('sum', QUEUE, _BACKLOG)} or {_EVERY}"),
                Column(
                    "To drain",
                    f"{drain_seconds(*QUEUE)} or {_EVERY}",
                    "s",
                    DRAIN_LIMITS,
                    mappings=(mapped({"-1": ("never", "red")}),),
                ),
                Column("Failed", f"{failed_share(*QUEUE)} or {_EVERY}", "percentunit", FAILED_LIMITS, decimals=2),
                Column("Workers", f"{aggregated('sum', QUEUE, series('eventq_workers'))} or {_EVERY}", "short", NONE_IS_BAD),
                Column("Utilisation", f"{utilisation(*QUEUE)} or {_EVERY}", "percentunit", UTILISATION_LIMITS, decimals=0),
                Column(
                    "Jobs per second",
                    f"{aggregated('sum', QUEUE, rate('eventq_jobs_finished_total'))} or {_EVERY}",
                    "ops",
                    trend=True,
                    width=260,
                ),
            ),
            sort_by="Oldest in line",
            height=10,
        ),
    ),
)

_WORK: Final = Row(
    "Work",
    (
        time_series(
            "Jobs added, started and finished",
            "Added above finished for long: the backlog grows. Started above finished: attempts that fail and run again.",
            (
                Target(aggregated("sum", (), rate("eventq_jobs_added_total")), "added"),
                Target(aggregated("sum", (), rate("eventq_job_attempts_started_total")), "started"),
                Target(aggregated("sum", (), rate("eventq_jobs_finished_total")), "finished"),
            ),
            "ops",
        ),
        time_series(
            "Backlog by queue",
            "Jobs that a worker could take, those of paused queues left out.",
            (Target(aggregated("sum", QUEUE, _BACKLOG), NAMED_BY_QUEUE),),
            "short",
            stacked=True,
        ),
        time_series(
            "Oldest job in line by queue",
            "How long the first job in line has been ready. The dashed lines are where the alerts are.",
            (Target(aggregated("max", QUEUE, _OLDEST), NAMED_BY_QUEUE),),
            "s",
            thresholds=AGE_LIMITS,
        ),
    ),
)

_ERRORS: Final = Row(
    "Errors",
    (
        time_series(
            "Failed jobs by queue",
            "Jobs per second that ended failed, for good.",
            (Target(aggregated("sum", QUEUE, rate("eventq_jobs_failed_total")), NAMED_BY_QUEUE),),
            "ops",
            stacked=True,
        ),
        time_series(
            "Failed share by queue",
            f"Share of the jobs that ended and ended failed. The first dashed line is the budget, {ERROR_BUDGET:.0%}.",
            (Target(failed_share(*QUEUE, window="$__rate_interval"), NAMED_BY_QUEUE),),
            "percentunit",
            thresholds=FAILED_LIMITS,
        ),
        bar_gauge(
            "Error budget left",
            f"Of the {ERROR_BUDGET:.0%} of jobs that may fail in the time shown, how much is left. Below 0: overspent. "
            "Show 30 days to see a month's budget.",
            Target(f"1 - {failed_share(*QUEUE)} / {ERROR_BUDGET}", NAMED_BY_QUEUE, instant=True),
            "percentunit",
            thresholds=limits((0, "orange"), (0.25, "green"), start="red"),
            most=1,
            empty="no jobs",
        ),
    ),
)

_DURATION: Final = Row(
    "Duration",
    (
        time_series(
            "Wait of all queues",
            "Seconds from ready to started; an intended delay is not waiting. The dots are single runs.",
            quantiles(
                {f"p{share * 100:.0f}": quantile(share, "eventq_job_wait_seconds") for share in (0.99, 0.95, 0.5)}, exemplars=True
            ),
            "s",
            width=12,
        ),
        time_series(
            "Processing by queue, p95",
            "Seconds that 95 % of the attempts stayed below.",
            (Target(quantile(0.95, "eventq_job_processing_seconds", *QUEUE), NAMED_BY_QUEUE, exemplar=True),),
            "s",
            width=12,
        ),
    ),
)

#: The dashboard.
FLEET: Final[Dashboard] = dashboard(
    "eventq-fleet",
    "Fleet",
    "All queues: whether jobs fail, wait or pile up, and in which queue.",
    (_NOW, _QUEUES, _WORK, _ERRORS, _DURATION),
)
