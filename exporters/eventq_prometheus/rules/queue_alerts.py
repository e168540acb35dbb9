"""Alerts about queues and their workers: jobs wait, nobody works, a schedule is late."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventq_prometheus.rules.model import COUNT, DURATION, PERCENT, QUEUE, Alert, Severity, label
from eventq_prometheus.rules.recording import BACKLOG
from eventq_prometheus.rules.settings import number_text

if TYPE_CHECKING:
    from eventq_prometheus.rules.settings import RuleSettings

__all__ = ["queue_alerts"]

_TEN, _QUARTER, _HALF = 600, 900, 1800


def queue_alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Return the alerts about queues."""
    return (
        _latency(settings, Severity.warning, settings.latency_warning),
        _latency(settings, Severity.critical, settings.latency_critical),
        _not_draining(settings),
        _no_workers(settings),
        _not_processing(settings),
        _saturated(settings),
        _scheduler_overdue(settings),
    )


def _total(settings: RuleSettings, metric: str) -> str:
    return f"sum by ({settings.by}) ({settings.series(metric)})"


def _unless_paused(settings: RuleSettings) -> str:
    return f"unless on ({settings.by}) max by ({settings.by}) ({settings.series('eventq_queue_paused')}) == 1"


def _latency(settings: RuleSettings, severity: str, seconds: float) -> Alert:
    # A delayed job has an age only when it is overdue, and then it waits as the others do.
    age = settings.series("eventq_queue_oldest_job_age_seconds", 'state=~"waiting|prioritized|delayed"')
    return Alert(
        name="EventqQueueLatencyHigh",
        expression=f"max by ({settings.by}) ({age}) > {settings.limit(seconds)}\n{_unless_paused(settings)}",
        wait=settings.latency_for,
        severity=severity,
        summary="Jobs that could run wait too long.",
        description=f"The oldest job of {QUEUE} that could run has waited for {DURATION}.",
        dashboard="eventq-queue",
    )


def _not_draining(settings: RuleSettings) -> Alert:
    finished = f"rate({settings.series('eventq_jobs_finished_total')}[{settings.window(_QUARTER)}])"
    return Alert(
        name="EventqQueueBacklogNotDraining",
        expression=(
            f"{BACKLOG}\n/\n(sum by ({settings.by}) ({finished}) > 0)\n> {settings.limit(settings.drain_warning)}\n"
            f"and deriv({BACKLOG}[{settings.window(_HALF)}]) > 0\n{_unless_paused(settings)}"
        ),
        wait=settings.drain_for,
        keep=settings.keep_firing_for,
        severity=Severity.warning,
        summary="The backlog grows and would take long to work off.",
        description=f"At the present rate {QUEUE} needs {DURATION} for the jobs in line, and they become more.",
        dashboard="eventq-queue",
    )


def _no_workers(settings: RuleSettings) -> Alert:
    delayed, age = (
        settings.series(metric, 'state="delayed"') for metric in ("eventq_queue_jobs", "eventq_queue_oldest_job_age_seconds")
    )
    return Alert(
        name="EventqQueueHasNoWorkers",
        # It is workers who bring due jobs into line: without them delayed ones stay delayed.
        expression=(
            f"(\n  {BACKLOG} > 0\n  or\n"
            f"  sum by ({settings.by}) ({delayed})\n  and on ({settings.by}) max by ({settings.by}) ({age}) > 0\n)\n"
            f"unless on ({settings.by}) {_total(settings, 'eventq_workers')} > 0\n{_unless_paused(settings)}"
        ),
        wait=settings.no_workers_for,
        severity=Severity.critical,
        summary="Jobs are to be run and no worker is alive.",
        description=f"Jobs of {QUEUE} in line, or delayed and the first overdue: {COUNT}. No worker is alive.",
        dashboard="eventq-workers",
    )


def _not_processing(settings: RuleSettings) -> Alert:
    window = settings.window(_TEN)
    started = f"increase({settings.series('eventq_job_attempts_started_total')}[{window}])"
    slots, busy = _total(settings, "eventq_worker_slots"), _total(settings, "eventq_worker_slots_busy")
    return Alert(
        name="EventqQueueNotProcessing",
        # With every slot in use nothing can be started: that is saturation, or a job that runs too long.
        expression=(
            f"min_over_time({BACKLOG}[{window}]) > 0\nand on ({settings.by})\n  {slots}\n  - {busy} > 0\n"
            f"unless on ({settings.by}) sum by ({settings.by}) ({started}) > 0\n{_unless_paused(settings)}"
        ),
        wait=settings.not_processing_for,
        severity=Severity.critical,
        summary="Workers are alive and have free slots, jobs wait, and none is started.",
        description=f"For {window} {QUEUE} had jobs in line, never less than {COUNT}, and started none, although slots are free.",
        dashboard="eventq-workers",
    )


def _saturated(settings: RuleSettings) -> Alert:
    window = settings.window(_QUARTER)
    busy = f"sum by ({settings.by}) (rate({settings.series('eventq_worker_busy_seconds_total')}[{window}]))"
    return Alert(
        name="EventqWorkersSaturated",
        # Full slots are what one pays for, as long as nothing waits for them.
        expression=(
            f"{busy}\n/\n({_total(settings, 'eventq_worker_slots')} > 0)\n> {number_text(settings.saturation)}\n"
            f"and on ({settings.by}) max_over_time({BACKLOG}[{window}]) > 0"
        ),
        wait=settings.saturation_for,
        severity=Severity.warning,
        summary="All slots of the workers are in use and jobs wait.",
        description=f"The slots of {QUEUE} are in use {PERCENT} of the time, and jobs wait for them.",
        dashboard="eventq-workers",
    )


def _scheduler_overdue(settings: RuleSettings) -> Alert:
    next_run = settings.series("eventq_scheduler_next_run_timestamp_seconds")
    return Alert(
        name="EventqSchedulerOverdue",
        expression=f"time() - min by ({settings.by}, scheduler) ({next_run}) > {settings.limit(settings.overdue)}",
        wait=settings.overdue_for,
        severity=Severity.warning,
        summary="A schedule did not fire when it was due.",
        description=f"Schedule {label('scheduler')} of {QUEUE} is {DURATION} late.",
        dashboard="eventq-queue",
    )
