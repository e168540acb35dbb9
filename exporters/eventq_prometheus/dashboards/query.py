"""PromQL, written from the catalogue: a metric that is not in it cannot be named.

Every selector has the matchers of the dashboards' variables that its metric has labels for.
"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.catalogue import CATALOGUE

__all__ = [
    "ALERTS",
    "BACKLOG",
    "PROGRAM",
    "QUEUE",
    "UnknownMetric",
    "aggregated",
    "drain_seconds",
    "failed_share",
    "filled",
    "grown",
    "of_program",
    "quantile",
    "rate",
    "series",
    "utilisation",
]

#: What tells one queue from another: the same name may be used in two namespaces.
QUEUE: Final = ("namespace", "queue")
#: The states of jobs that a worker could take.
BACKLOG: Final = 'state=~"waiting|prioritized"'

_TARGET: Final = ('job=~"$job"', 'namespace=~"$namespace"')
#: Alerts are made by aggregation, so they have no job; those about the exporter have no queue either: `|` lets them through.
#: The watchdog fires always.
ALERTS: Final = (
    'ALERTS{alertname=~"Eventq.*", alertname!="EventqWatchdog", alertstate="firing", namespace=~"$namespace|", queue=~"$queue|"}'
)

#: What Prometheus knows of every target, and what the exporter's process says of itself.
PROGRAM: Final = frozenset({
    "up", "scrape_duration_seconds", "scrape_samples_scraped",
    "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_start_time_seconds",
})  # fmt: skip

_LABELS: Final = {name: metric.series_labels for metric in CATALOGUE.values() for name in metric.series_names}
_VALUES: Final = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    "$datasource": "prometheus",
    "$job": ".*",
    "$namespace": ".*",
    "$queue": ".*",
}


class UnknownMetric(Exception):
    """A series that no metric has."""


def series(name: str, *matchers: str) -> str:
    """Return a selector: the series' name, the variables that fit it, and these matchers."""
    if name not in _LABELS:
        raise UnknownMetric(name)
    queue = ('queue=~"$queue"',) if "queue" in _LABELS[name] else ()
    return f"{name}{{{', '.join((*_TARGET, *queue, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """Return a counter's rate per second."""
    return f"rate({series(name, *matchers)}[$__rate_interval])"


def grown(name: str, *matchers: str) -> str:
    """Return by how much a counter grew in the time shown."""
    return f"increase({series(name, *matchers)}[$__range])"


def aggregated(operation: str, labels: tuple[str, ...], expression: str) -> str:
    """Return an aggregation by labels; by none of them when there are none."""
    by = f" by ({', '.join(labels)}) " if labels else ""
    return f"{operation}{by}({expression})"


def quantile(share: float, name: str, *labels: str, matchers: tuple[str, ...] = ()) -> str:
    """Return a quantile of a histogram, by labels."""
    buckets = aggregated("sum", ("le", *labels), rate(f"{name}_bucket", *matchers))
    return f"histogram_quantile({share}, {buckets})"


def failed_share(*labels: str, window: str = "$__range") -> str:
    """Return which share of the jobs that ended did so failed, by labels; nothing where none ended."""
    growth = "increase" if window == "$__range" else "rate"
    failed, finished = (
        aggregated("sum", labels, f"{growth}({series(name)}[{window}])")
        for name in ("eventq_jobs_failed_total", "eventq_jobs_finished_total")
    )
    return f"{failed} / ({finished} > 0)"


def utilisation(*labels: str) -> str:
    """Return which share of the workers' slots was in use, by labels; nothing where there are no slots."""
    busy = aggregated("sum", labels, rate("eventq_worker_busy_seconds_total"))
    return f"{busy} / ({aggregated('sum', labels, series('eventq_worker_slots'))} > 0)"


def drain_seconds(*labels: str) -> str:
    """Return how long the backlog takes at the rate of now, by labels; -1 where it takes for ever."""
    backlog = aggregated("sum", labels, series("eventq_queue_jobs", BACKLOG))
    finished = aggregated("sum", labels, rate("eventq_jobs_finished_total"))
    return f"{backlog} / ({finished} > 0) or 0 - ({backlog} > bool 0)"


def of_program(name: str, function: str = "") -> str:
    """Return a series that every program or target has, of eventq's exporters only. `function`: takes its range first."""
    if name not in PROGRAM:
        raise UnknownMetric(name)
    selector = f"{name}{{{', '.join(_TARGET)}}}"
    # All jobs are chosen as `.+`, which is every program there is. An exporter that is down is known by what it said before.
    known = f"present_over_time({series('eventq_up')}[$__range])"
    return f"{f'{function}({selector}[$__rate_interval])' if function else selector} and on (job, instance) {known}"


def filled(query: str) -> str:
    """Return a query with something in place of each variable: every job, namespace and queue, and the last hour."""
    for variable, value in _VALUES.items():
        query = query.replace(variable, value).replace(f"${{{variable[1:]}}}", value)
    return query
