"""Alerts about what becomes of jobs: they fail, lose their worker, run too long, pile up failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventq_prometheus.rules.model import COUNT, DURATION, PERCENT, QUEUE, Alert, Severity, label
from eventq_prometheus.rules.recording import RUN_P99, finished_in, ratio_over
from eventq_prometheus.rules.settings import SUM_WINDOWS, number_text

if TYPE_CHECKING:
    from eventq_prometheus.rules.settings import RuleSettings

__all__ = ["job_alerts"]

_QUARTER, _HOUR = 900, 3600


def job_alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Return the alerts about jobs."""
    return (
        _burn(settings),
        _burn_slow(settings),
        _failing_low_traffic(settings),
        _stalled(settings),
        _running_too_long(settings),
        _failed_set_growing(settings),
    )


def _burning(settings: RuleSettings, factor: str, long: str, short: str) -> str:
    """Return the ratio of the long window where both windows are above the threshold and jobs enough ended to tell."""
    threshold = number_text(settings.burn(factor))
    return (
        f"(\n  {ratio_over(long)} > {threshold}\n  and {ratio_over(short)} > {threshold}\n"
        f"  and {finished_in(long)} >= {settings.jobs_enough(factor)}\n)"
    )


def _allowed(settings: RuleSettings) -> str:
    return f"the objective allows {number_text(settings.budget * 100)}%"


def _burn(settings: RuleSettings) -> Alert:
    hour, six = _burning(settings, "page_burn_1h", "1h", "5m"), _burning(settings, "page_burn_6h", "6h", "30m")
    return Alert(
        name="EventqJobErrorBudgetBurn",
        expression=f"{hour}\nor\n{six}",
        keep=settings.keep_firing_for,
        severity=Severity.critical,
        summary="Jobs fail so fast that the error budget of a month is gone within days.",
        description=f"{PERCENT} of the jobs of {QUEUE} that ended lately failed for good; {_allowed(settings)}.",
        dashboard="eventq-queue",
    )


def _burn_slow(settings: RuleSettings) -> Alert:
    day, three = _burning(settings, "ticket_burn_1d", "1d", "2h"), _burning(settings, "ticket_burn_3d", "3d", "6h")
    return Alert(
        name="EventqJobErrorBudgetBurnSlow",
        expression=f"{day}\nor\n{three}",
        severity=Severity.warning,
        summary="Jobs fail faster than the error budget of a month allows.",
        description=f"{PERCENT} of the jobs of {QUEUE} that ended in the last days failed for good; {_allowed(settings)}.",
        dashboard="eventq-queue",
    )


def _failing_low_traffic(settings: RuleSettings) -> Alert:
    failed, finished = settings.series("eventq_jobs_failed_total"), settings.series("eventq_jobs_finished_total")
    six = settings.window(SUM_WINDOWS["6h"])
    return Alert(
        name="EventqJobsFailingLowTraffic",
        # increase() extrapolates: three failures may read 2.99. Both from the counters: what is recorded begins later.
        expression=(
            f"sum by ({settings.by}, job_name) (increase({failed}[{six}])) >= {number_text(settings.quiet_failures - 0.5)}\n"
            f"unless on ({settings.by})\n"
            f"  sum by ({settings.by}) (increase({finished}[{six}])) >= {settings.jobs_enough('page_burn_6h')}"
        ),
        severity=Severity.warning,
        summary="Several jobs of one name failed in a queue that is too quiet for ratios.",
        description=f"Jobs {label('job_name')} of {QUEUE} that failed for good within {six}: {COUNT}.",
        dashboard="eventq-queue",
    )


def _stalled(settings: RuleSettings) -> Alert:
    stalled, window = settings.series("eventq_jobs_stalled_total"), settings.window(_QUARTER)
    least = number_text(settings.stalled_runs - 0.5)
    return Alert(
        name="EventqJobsStalled",
        expression=f"sum by ({settings.by}, job_name) (increase({stalled}[{window}])) >= {least}",
        keep=settings.keep_firing_for,
        severity=Severity.warning,
        summary="Workers went silent while they ran jobs.",
        description=f"Runs of {label('job_name')} in {QUEUE} that lost their worker within {window}: {COUNT}.",
        dashboard="eventq-workers",
    )


def _running_too_long(settings: RuleSettings) -> Alert:
    active = settings.series("eventq_queue_oldest_job_age_seconds", 'state="active"')
    age = f"max by ({settings.by}) ({active})"
    return Alert(
        name="EventqJobRunningTooLong",
        # Where nothing ended for a day the quantile is missing, or not a number.
        expression=(
            f"(\n  {age}\n  > {number_text(settings.run_factor)} * {RUN_P99}\n"
            f"  and {age} > {settings.limit(settings.run_minimum)}\n)\n"
            f"or\n(\n  {age} > {settings.limit(settings.run_unknown)}\n  unless {RUN_P99} >= 0\n)"
        ),
        wait=settings.run_for,
        severity=Severity.warning,
        summary="A job runs far longer than the jobs of its queue do.",
        description=f"A job of {QUEUE} has been running for {DURATION}.",
        dashboard="eventq-workers",
    )


def _failed_set_growing(settings: RuleSettings) -> Alert:
    failed, window = settings.series("eventq_queue_jobs", 'state="failed"'), settings.window(_HOUR)
    return Alert(
        name="EventqFailedSetGrowing",
        expression=f"sum by ({settings.by}) (delta({failed}[{window}])) > {number_text(settings.failed_growth)}",
        wait=settings.failed_growth_for,
        severity=Severity.warning,
        summary="Failed jobs pile up and nobody takes care of them.",
        description=f"{QUEUE.capitalize()} keeps {COUNT} more failed jobs than {window} ago.",
        dashboard="eventq-queue",
    )
