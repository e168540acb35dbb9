"""Alerts about the exporter itself, without which the others are blind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventq_prometheus.rules.model import COUNT, DURATION, QUEUE, Alert, Severity, label
from eventq_prometheus.rules.settings import number_text

if TYPE_CHECKING:
    from eventq_prometheus.rules.settings import RuleSettings

__all__ = ["exporter_alerts"]

_QUARTER = 900
_JOB = label("job")


def exporter_alerts(settings: RuleSettings) -> tuple[Alert, ...]:
    """Return the alerts about the exporter."""
    return (
        _redis_unreachable(settings),
        _exporter_down(settings),
        _scrape_incomplete(settings),
        _lag_near_retention(settings),
        _events_lost(settings),
        _watchdog(),
    )


def _highest(settings: RuleSettings, metric: str) -> str:
    """Return the best that any process says: of two, one stands by."""
    return f"max by ({settings.target_by}) ({settings.series(metric)})"


def _redis_unreachable(settings: RuleSettings) -> Alert:
    return Alert(
        name="EventqRedisUnreachable",
        expression=f"{_highest(settings, 'eventq_up')} == 0",
        wait=settings.redis_for,
        severity=Severity.critical,
        summary="Redis does not answer the exporter.",
        description=f"No process of scrape job {_JOB} gets an answer from Redis; workers and producers may get none either.",
        dashboard="eventq-pipeline",
    )


def _exporter_down(settings: RuleSettings) -> Alert:
    up, leader = settings.series("up"), settings.series("eventq_exporter_leader")
    return Alert(
        name="EventqExporterDown",
        # Nobody leads while Redis is away: that is the alert above. What is down and still a target is not absent as well.
        expression=(
            f"{_highest(settings, 'up')} == 0\n"
            f"or\n(\n  {_highest(settings, 'eventq_exporter_leader')} == 0\n  unless {_highest(settings, 'eventq_up')} == 0\n)\n"
            f"or\n(\n  absent({leader})\n  unless on () {up} == 0\n)"
        ),
        wait=settings.exporter_for,
        severity=Severity.critical,
        summary="No exporter reads the events.",
        description=(
            f"{{{{ if $labels.job }}}}Scrape job {_JOB} has no process that is up and reads events"
            "{{ else }}Prometheus knows of no exporter{{ end }}: the other alerts of eventq are blind."
        ),
        dashboard="eventq-pipeline",
    )


def _scrape_incomplete(settings: RuleSettings) -> Alert:
    on, success = settings.target_by, settings.series("eventq_scrape_collector_success")
    leader, up = settings.series("eventq_exporter_leader"), settings.series("eventq_up")
    return Alert(
        name="EventqScrapeIncomplete",
        # A process that stands by reads no queues, and nothing is done in time while Redis is away.
        expression=(
            f"min by ({on}, collector) (\n  {success}\n  and on ({on}, instance) {leader} == 1\n"
            f"  and on ({on}, instance) {up} == 1\n) == 0"
        ),
        wait=settings.scrape_for,
        severity=Severity.warning,
        summary="A part of the metrics is missing or old.",
        description=f"Part {label('collector')} of scrape job {_JOB} was not done in time: alerts that need it are blind.",
        dashboard="eventq-pipeline",
    )


def _lag_near_retention(settings: RuleSettings) -> Alert:
    lag = f"max by ({settings.by}) ({settings.series('eventq_event_lag_seconds')})"
    kept = f"max by ({settings.by}) ({settings.series('eventq_event_stream_retention_seconds')})"
    return Alert(
        name="EventqEventLagNearRetention",
        expression=(f"{lag}\n> {number_text(settings.lag_share)} * {kept}\nand {lag} > {settings.limit(settings.lag_minimum)}"),
        wait=settings.lag_for,
        severity=Severity.critical,
        summary="Events will be lost before the exporter has read them.",
        description=(
            f"The exporter is {DURATION} behind in {QUEUE}: more than {number_text(settings.lag_share * 100)}% of what is kept."
        ),
        dashboard="eventq-pipeline",
    )


def _events_lost(settings: RuleSettings) -> Alert:
    lost, window = settings.series("eventq_events_lost_total"), settings.window(_QUARTER)
    return Alert(
        name="EventqEventsLost",
        expression=f"sum by ({settings.by}, cause) (increase({lost}[{window}])) > 0",
        keep=settings.keep_firing_for,
        severity=Severity.warning,
        summary="Events were lost before the exporter read them.",
        description=(
            f"Events of {QUEUE} that were lost within {window} ({label('cause')}): {COUNT}. Histograms and breakdowns lack them, "
            "totals do not."
        ),
        dashboard="eventq-pipeline",
    )


def _watchdog() -> Alert:
    return Alert(
        name="EventqWatchdog",
        expression="vector(1)",
        severity=Severity.none,
        summary="Alerts are delivered: this one always fires.",
        description="Route it to something that raises the alarm when this alert is no longer heard of.",
        dashboard="eventq-pipeline",
    )
