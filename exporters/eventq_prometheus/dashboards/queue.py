"""Dashboard B: one queue, or a few. What happens to its jobs, how long does it take, and why do some fail?"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.dashboards.model import Dashboard, Row, Target
from eventq_prometheus.dashboards.panels import NAMED_BY_QUEUE, bar_gauge, heatmap, limits, mapped, quantiles, stat, time_series
from eventq_prometheus.dashboards.query import (
    BACKLOG,
    QUEUE,
    aggregated,
    drain_seconds,
    failed_share,
    grown,
    quantile,
    rate,
    series,
)
from eventq_prometheus.dashboards.shared import (
    AGE_LIMITS,
    DRAIN_LIMITS,
    ERROR_BUDGET,
    FAILED_LIMITS,
    OVERDUE_SECONDS,
    SOME_IS_WORTH_A_LOOK,
    dashboard,
)
from eventq_prometheus.dashboards.tables import Column, Label, table

__all__ = ["QUEUE_DETAIL"]

_NAME: Final = ("queue", "job_name")
_SCHEDULE: Final = ("queue", "scheduler")
_AGE: Final = "eventq_queue_oldest_job_age_seconds"
_FINISHED: Final = 'state=~"completed|failed"'
_UNFINISHED: Final = 'state!~"completed|failed"'


def _total(name: str, *matchers: str) -> str:
    return aggregated("sum", (), rate(name, *matchers))


def _bars(name: str) -> str:
    return aggregated("sum", (), f"increase({series(name)}[$__rate_interval])")


def _spread(name: str, *shares: float) -> dict[str, str]:
    return {f"p{share * 100:.0f}": quantile(share, name) for share in shares}


_NOW: Final = Row(
    "Now",
    (
        stat(
            "Backlog",
            "Jobs that a worker could take now.",
            aggregated("sum", (), series("eventq_queue_jobs", BACKLOG)),
            "short",
        ),
        stat(
            "Oldest job in line",
            "How long the job that has waited longest has been ready.",
            aggregated("max", (), series(_AGE, BACKLOG)),
            "s",
            thresholds=AGE_LIMITS,
        ),
        stat(
            "To drain",
            "How long the backlog takes at the rate of now, were nothing added.",
            drain_seconds(),
            "s",
            thresholds=DRAIN_LIMITS,
            mappings=(mapped({"-1": ("never", "red")}),),
        ),
        stat("Running", "Jobs that run now.", aggregated("sum", (), series("eventq_queue_jobs", 'state="active"')), "short"),
        stat(
            "Longest running",
            "How long the job that was started first has been running.",
            aggregated("max", (), series(_AGE, 'state="active"')),
            "s",
        ),
        stat("Throughput", "Jobs that end per second, well or badly.", _total("eventq_jobs_finished_total"), "ops"),
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
            "Paused queues",
            "Queues whose jobs nobody may start.",
            aggregated("sum", (), series("eventq_queue_paused")),
            "short",
            thresholds=SOME_IS_WORTH_A_LOOK,
        ),
    ),
)

_FLOW: Final = Row(
    "Flow",
    (
        time_series(
            "Jobs by state",
            "Jobs that are not finished. Paused: in line in a paused queue. Waiting children: until their children are finished.",
            (Target(aggregated("sum", ("state",), series("eventq_queue_jobs", _UNFINISHED)), "{{state}}"),),
            "short",
            stacked=True,
            stepped=True,
        ),
        time_series(
            "In and out",
            "Jobs per second. Promoted: delayed jobs that came into line. Released: runs given back uncounted.",
            (
                Target(_total("eventq_jobs_added_total"), "added"),
                Target(_total("eventq_jobs_promoted_total"), "promoted"),
                Target(_total("eventq_job_attempts_started_total"), "started"),
                Target(_total("eventq_jobs_completed_total"), "completed"),
                Target(_total("eventq_jobs_failed_total"), "failed"),
                Target(_total("eventq_jobs_released_total"), "released"),
            ),
            "ops",
        ),
        time_series(
            "Finished jobs kept",
            "What retention has left of finished jobs. Failed ones that pile up are waiting for somebody to look at them.",
            (Target(aggregated("sum", ("state",), series("eventq_queue_jobs", _FINISHED)), "{{state}}"),),
            "short",
            stepped=True,
        ),
    ),
)

_TIME: Final = Row(
    "Time",
    (
        heatmap(
            "Wait",
            "Runs by how long they had waited: from ready to started. An intended delay or backoff is not waiting.",
            aggregated("sum", ("le",), f"increase({series('eventq_job_wait_seconds_bucket')}[$__rate_interval])"),
        ),
        heatmap(
            "Processing",
            "Attempts by how long they took, however they ended.",
            aggregated("sum", ("le",), f"increase({series('eventq_job_processing_seconds_bucket')}[$__rate_interval])"),
        ),
        time_series(
            "Wait, quantiles",
            "Seconds that 50, 95 and 99 % of the runs had waited at most. The dots are single runs.",
            quantiles(_spread("eventq_job_wait_seconds", 0.99, 0.95, 0.5), exemplars=True),
            "s",
        ),
        time_series(
            "Processing by outcome, p95",
            "Seconds that 95 % of the attempts stayed below, by how they ended. The dots are single attempts.",
            (Target(quantile(0.95, "eventq_job_processing_seconds", "outcome"), "{{outcome}}", exemplar=True),),
            "s",
        ),
        time_series(
            "From ready to finished, quantiles",
            "Seconds a job took in all: waits, attempts and backoff, an intended delay left out.",
            quantiles(_spread("eventq_job_total_seconds", 0.99, 0.95, 0.5), exemplars=True),
            "s",
        ),
    ),
)


def _by_name(name: str) -> str:
    return aggregated("sum", _NAME, grown(name))


#: The attempts of a name in the job explorer.
_ATTEMPTS: Final = (
    "/d/eventq-jobs?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${namespace:queryparam}"
    "&var-queue=${__data.fields.queue}&var-job_name=${__value.raw:percentencode}"
)

_NAMES: Final = Row(
    "Job names",
    (
        table(
            "Job names",
            "A row for each job name, in the time shown. Attempts per job: 1 when none had to run again. "
            "A name leads to its attempts in the job explorer, which needs traces.",
            (Label("queue", "Queue"), Label("job_name", "Job name", _ATTEMPTS, "Attempts in the job explorer")),
            (
                Column("Started", _by_name("eventq_job_attempts_started_total"), decimals=0),
                Column("Finished", _by_name("eventq_jobs_finished_total"), decimals=0),
                Column("Failed", failed_share(*_NAME), "percentunit", FAILED_LIMITS, decimals=2),
                Column(
                    "Attempts per job",
                    f"{_by_name('eventq_job_attempts_started_total')} / ({_by_name('eventq_jobs_finished_total')} > 0)",
                    "none",
                    limits((1.5, "orange"), (3, "red")),
                    decimals=2,
                ),
                Column("Retried", _by_name("eventq_jobs_retried_total"), decimals=0),
                Column("Attempts used up", _by_name("eventq_jobs_retries_exhausted_total"), decimals=0),
                Column("Stalled", _by_name("eventq_jobs_stalled_total"), "short", SOME_IS_WORTH_A_LOOK, decimals=0),
            ),
            sort_by="Started",
            empty="no jobs in this time",
        ),
    ),
)

_ERRORS: Final = Row(
    "Errors and retries",
    (
        bar_gauge(
            "Errors by type",
            "Failed attempts in the time shown, by the type of the error: the ten most frequent.",
            Target(
                f"topk(10, {aggregated('sum', ('error_type',), grown('eventq_job_errors_total'))})",
                "{{error_type}}",
                instant=True,
            ),
            "short",
            thresholds=limits(start="orange"),
        ),
        time_series(
            "Failed attempts",
            "What became of attempts that failed. Retried: the job runs again. Failed: it ended, by an error that "
            "nothing retries. Used up: it ended, as its attempts were used up.",
            (
                Target(_bars("eventq_jobs_retried_total"), "retried"),
                Target(f"{_bars('eventq_jobs_failed_total')} - {_bars('eventq_jobs_retries_exhausted_total')}", "failed"),
                Target(_bars("eventq_jobs_retries_exhausted_total"), "used up"),
            ),
            "short",
            bars=True,
            stacked=True,
        ),
        bar_gauge(
            "Attempts per job",
            "Jobs that ended in the time shown, by how many attempts they took: up to the number beside the bar, "
            "and more than the number above it.",
            Target(
                aggregated("sum", ("le",), grown("eventq_job_attempts_per_job_bucket")), "{{le}}", instant=True, format="heatmap"
            ),
            "short",
        ),
        time_series(
            "Stalled runs and lost leases",
            "Stalled: the lease ended without a word from the worker, which has crashed or hangs. "
            "Lost: the worker is alive and renewed too late, as something blocks its event loop.",
            (
                Target(_bars("eventq_jobs_stalled_total"), "stalled"),
                Target(_bars("eventq_worker_leases_lost_total"), "leases lost"),
            ),
            "short",
            bars=True,
        ),
        time_series(
            "Failed share of attempts",
            "Share of the runs begun that failed, whether or not the job ran again. High beside few failed jobs: "
            "retries hide a fault.",
            (
                Target(
                    f"{aggregated('sum', QUEUE, rate('eventq_job_attempts_failed_total'))} / "
                    f"({aggregated('sum', QUEUE, rate('eventq_job_attempts_started_total'))} > 0)",
                    NAMED_BY_QUEUE,
                ),
            ),
            "percentunit",
        ),
        time_series(
            "Duplicated, removed, progress",
            "Duplicated: adds with an own id that was stored already. Removed: by retention, by hand, by clean or drain. "
            "Progress: what processors reported; a line at 0 beside long jobs may be one that hangs.",
            (
                Target(_total("eventq_jobs_duplicated_total"), "duplicated"),
                Target(_total("eventq_jobs_removed_total"), "removed"),
                Target(_total("eventq_job_progress_updates_total"), "progress"),
            ),
            "ops",
        ),
    ),
)


def _by_schedule(expression: str) -> str:
    return aggregated("max", _SCHEDULE, expression)


_SCHEDULES: Final = Row(
    "Delayed and scheduled",
    (
        time_series(
            "Lateness of delayed jobs",
            "Seconds from when a delayed job was due to when it came into line.",
            quantiles(_spread("eventq_delayed_job_lateness_seconds", 0.99, 0.95, 0.5)),
            "s",
        ),
        time_series(
            "Drift of schedules",
            "Seconds from a schedule's slot to when its job was added.",
            quantiles(_spread("eventq_scheduler_drift_seconds", 0.99, 0.95, 0.5)),
            "s",
        ),
        time_series(
            "Overdue delayed jobs",
            "How long the delayed job that is overdue most should have been in line. More than a few seconds: "
            "no worker or scheduler looks after the queue.",
            (Target(aggregated("max", QUEUE, series(_AGE, 'state="delayed"')), NAMED_BY_QUEUE),),
            "s",
            thresholds=limits((60, "red")),
        ),
        table(
            "Schedules",
            "A row for each schedule. Next run: seconds until then; below 0 it is overdue. "
            "Missed: slots in the time shown that nobody fired and that its policy does not run later.",
            (Label("queue", "Queue"), Label("scheduler", "Schedule")),
            (
                Column(
                    "Last run, ago",
                    f"time() - {_by_schedule(series('eventq_scheduler_last_run_timestamp_seconds'))}",
                    "s",
                ),
                Column(
                    "Next run, in",
                    f"{_by_schedule(series('eventq_scheduler_next_run_timestamp_seconds'))} - time()",
                    "s",
                    limits((-OVERDUE_SECONDS, "orange"), (-10, "green"), start="red"),
                ),
                Column(
                    "Missed",
                    aggregated("sum", _SCHEDULE, grown("eventq_scheduler_missed_runs_total")),
                    "short",
                    SOME_IS_WORTH_A_LOOK,
                    decimals=0,
                ),
            ),
            sort_by="Missed",
            height=8,
            empty="no schedules",
        ),
    ),
)

#: The dashboard.
QUEUE_DETAIL: Final[Dashboard] = dashboard(
    "eventq-queue",
    "Queue detail",
    "One queue or a few: what happens to their jobs, how long it takes, and why some fail.",
    (_NOW, _FLOW, _TIME, _NAMES, _ERRORS, _SCHEDULES),
)
