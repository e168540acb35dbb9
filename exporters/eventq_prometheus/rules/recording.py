"""The recording rules: failure ratios and counts of jobs over several windows, the backlog, how long attempts take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventq_prometheus.rules.model import Recording
from eventq_prometheus.rules.settings import RATE_WINDOWS, SUM_WINDOWS, number_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventq_prometheus.rules.settings import RuleSettings

__all__ = ["BACKLOG", "IN_LINE", "RUN_P99", "finished_in", "ratio_over", "recordings"]

#: Matcher of the states whose jobs a worker could take.
IN_LINE: Final = 'state=~"waiting|prioritized"'
BACKLOG: Final = "queue:eventq_queue_backlog:sum"
RUN_P99: Final = "queue:eventq_job_processing_seconds:p99_1d"
_RUN_RATE: Final = "queue:eventq_job_processing_seconds_bucket:rate5m"
_FAILED: Final = "queue:eventq_jobs_failed:rate5m"
_FINISHED: Final = "queue:eventq_jobs_finished:rate5m"


def ratio_over(window: str) -> str:
    """Return the recorded share of finished jobs that failed."""
    return f"queue:eventq_jobs_failed_per_finished:ratio_rate{window}"


def finished_in(window: str) -> str:
    """Return the recorded number of jobs that ended."""
    return f"queue:eventq_jobs_finished:increase{window}"


def recordings(settings: RuleSettings) -> tuple[Recording, ...]:
    """Return them in an order in which each has what it reads."""
    return (*_rates(settings), *_ratios(settings), *_counts(settings), *_states(settings))


def _rates(settings: RuleSettings) -> Iterator[Recording]:
    for name, metric in ((_FAILED, "eventq_jobs_failed_total"), (_FINISHED, "eventq_jobs_finished_total")):
        yield Recording(name, _rate(settings, metric, RATE_WINDOWS["5m"]), settings.labels)


def _ratios(settings: RuleSettings) -> Iterator[Recording]:
    yield Recording(ratio_over("5m"), f"{_FAILED} / ({_FINISHED} > 0)", settings.labels)
    for window, seconds in RATE_WINDOWS.items():
        if window != "5m":
            failed, finished = (
                _rate(settings, metric, seconds) for metric in ("eventq_jobs_failed_total", "eventq_jobs_finished_total")
            )
            yield Recording(ratio_over(window), f"{failed}\n/\n({finished} > 0)", settings.labels)
    for window, seconds in SUM_WINDOWS.items():
        failed, finished = (f"sum_over_time({recorded}[{settings.window(seconds)}])" for recorded in (_FAILED, _FINISHED))
        yield Recording(ratio_over(window), f"{failed}\n/\n({finished} > 0)", settings.labels)


def _counts(settings: RuleSettings) -> Iterator[Recording]:
    counted = settings.series("eventq_jobs_finished_total")
    hour = settings.window(RATE_WINDOWS["1h"])
    yield Recording(finished_in("1h"), f"sum by ({settings.by}) (increase({counted}[{hour}]))", settings.labels)
    for window, seconds in SUM_WINDOWS.items():
        # A sum, and not the average by the window: a queue that is an hour old has no three days of jobs.
        summed = f"sum_over_time({_FINISHED}[{settings.window(seconds)}])"
        yield Recording(finished_in(window), f"{summed} * {number_text(settings.every)}", settings.labels)


def _states(settings: RuleSettings) -> Iterator[Recording]:
    jobs = settings.series("eventq_queue_jobs", IN_LINE)
    yield Recording(BACKLOG, f"sum by ({settings.by}) ({jobs})", settings.labels)
    buckets = settings.series("eventq_job_processing_seconds_bucket")
    five = settings.window(RATE_WINDOWS["5m"])
    yield Recording(_RUN_RATE, f"sum by ({settings.by}, le) (rate({buckets}[{five}]))", (*settings.labels, "le"))
    day = settings.window(SUM_WINDOWS["1d"])
    yield Recording(RUN_P99, f"histogram_quantile(0.99, sum_over_time({_RUN_RATE}[{day}]))", settings.labels)


def _rate(settings: RuleSettings, metric: str, seconds: float) -> str:
    return f"sum by ({settings.by}) (rate({settings.series(metric)}[{settings.window(seconds)}]))"
