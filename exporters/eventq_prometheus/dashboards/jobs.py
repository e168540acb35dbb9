"""Dashboard D: single jobs, by their traces. What became of this one, which ones failed, and which ones were slow?"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.dashboards.model import Dashboard, Json, Row, TraceTarget
from eventq_prometheus.dashboards.panels import time_series
from eventq_prometheus.dashboards.shared import dashboard, source_variable
from eventq_prometheus.dashboards.traceql import OF_JOB, attempts, quantiles, rate
from eventq_prometheus.dashboards.traces import DURATION, SpanColumn, spans_table, trace

__all__ = ["JOBS"]

#: This dashboard with another job and another trace; what else is chosen stays.
_CHOSEN: Final = (
    "/d/eventq-jobs?${__url_time_range}&${datasource:queryparam}&${job:queryparam}&${namespace:queryparam}&${queue:queryparam}"
    "&${tempo_datasource:queryparam}&${job_name:queryparam}&${min_duration:queryparam}"
    '&var-job_id=${__data.fields["messaging.message.id"]}&var-trace_id=${__data.fields.traceIdHidden}'
)
_JOB: Final = SpanColumn("messaging.message.id", "Job")
_QUEUE: Final = SpanColumn("messaging.destination.name", "Queue")
_JOB_NAME: Final = SpanColumn("eventq.job.name", "Job name")
_ATTEMPT: Final = SpanColumn("eventq.job.attempt", "Attempt", "none", is_number=True, width=90)
_OUTCOME: Final = SpanColumn("eventq.job.outcome", "Outcome")
_ERROR: Final = SpanColumn("error.type", "Error")
_WAITED: Final = SpanColumn("eventq.job.wait_duration", "Waited", "s", is_number=True, width=110)
_WORKER: Final = SpanColumn("messaging.client.id", "Worker")
_SERVICE: Final = SpanColumn("service.name", "Service")

#: Failed, stalled and slow attempts are all kept, so the rest of a rate depends on the sampler.
_AS_TRACED: Final = "Counted are spans: all that failed or stalled, and of the others what the sampler took."

_ONE_JOB: Final = Row(
    "One job",
    (
        spans_table(
            "Spans of the job",
            "Everything of the job whose id stands at the top, the newest first: that it was added, each attempt. Attempts of an "
            "old job are in traces of their own. A row's name leads to its trace.",
            OF_JOB,
            (SpanColumn("name", "Span"), _QUEUE, _JOB_NAME, _ATTEMPT, _OUTCOME, _ERROR, _WAITED, _WORKER, _SERVICE, _JOB),
            ("Span", "Show this trace", _CHOSEN),
            height=7,
        ),
        trace(
            "Trace",
            "The trace whose id stands at the top: the job in line with what added it and what it did itself. "
            "Until an id is chosen, in one of the tables, Grafana says that one is required.",
            "$trace_id",
        ),
    ),
)

_FOUND: Final = Row(
    "Attempts to look at",
    (
        spans_table(
            "Failed attempts",
            "The newest attempts that failed, timed out or stalled, whether or not the job ran again. A job's id leads to that "
            "job and to the trace. Tempo finds what is half a minute old.",
            attempts("status = error"),
            (_JOB, _QUEUE, _JOB_NAME, _ATTEMPT, _OUTCOME, _ERROR, _WAITED, _WORKER, _SERVICE),
            ("Job", "Show this job and its trace", _CHOSEN),
        ),
        spans_table(
            "Slow attempts",
            "The newest attempts that took as long as stands at the top, or longer; the slowest of these first. "
            "A job's id leads to that job and to the trace.",
            attempts("duration >= $min_duration"),
            (_JOB, _QUEUE, _JOB_NAME, _ATTEMPT, _OUTCOME, _ERROR, _WAITED, _WORKER, _SERVICE),
            ("Job", "Show this job and its trace", _CHOSEN),
            sort_by=DURATION,
        ),
    ),
)

_RATES: Final = Row(
    "Attempts over time",
    (
        time_series(
            "Failed attempts by error",
            "Attempts per second that failed, by the type of the error. Every one of them is traced.",
            (TraceTarget(rate(attempts("status = error"), "error.type")),),
            "ops",
            stacked=True,
            width=12,
        ),
        time_series(
            "Attempts by outcome",
            f"Attempts per second, by what became of them. {_AS_TRACED}",
            (TraceTarget(rate(attempts(), "eventq.job.outcome")),),
            "ops",
            stacked=True,
            width=12,
        ),
        time_series(
            "Duration of attempts, quantiles",
            f"Seconds that 50, 95 and 99 % of the attempts took at most. {_AS_TRACED}",
            (TraceTarget(quantiles(attempts(), "duration")),),
            "s",
            width=12,
        ),
        time_series(
            "Wait before attempts, quantiles",
            f"Seconds that 50, 95 and 99 % of the attempts had waited at most: from ready to started. {_AS_TRACED}",
            (TraceTarget(quantiles(attempts(), "eventq.job.wait_duration")),),
            "s",
            width=12,
        ),
    ),
)


def _text_box(name: str, title: str) -> Json:
    return {
        "current": {"selected": False, "text": "", "value": ""},
        "hide": 0,
        "label": title,
        "name": name,
        "options": [{"selected": True, "text": "", "value": ""}],
        "query": "",
        "skipUrlSync": False,
        "type": "textbox",
    }


def _choice(name: str, title: str, values: tuple[str, ...], chosen: str) -> Json:
    return {
        "current": {"selected": True, "text": chosen, "value": chosen},
        "hide": 0,
        "includeAll": False,
        "label": title,
        "multi": False,
        "name": name,
        "options": [{"selected": value == chosen, "text": value, "value": value} for value in values],
        "query": ",".join(values),
        "skipUrlSync": False,
        "type": "custom",
    }


_VARIABLES: Final[tuple[Json, ...]] = (
    # Named as dashboard-linter wants it. It would have the other one called prometheus_datasource beside this one,
    # and then the links between the dashboards would lose what is chosen.
    source_variable("tempo_datasource", "Tempo data source", "tempo"),
    _text_box("job_id", "Job id"),
    _text_box("trace_id", "Trace id"),
    _text_box("job_name", "Job name begins with"),
    _choice("min_duration", "Slow from", ("0ms", "10ms", "100ms", "1s", "10s", "1m", "10m", "1h"), "1s"),
)

#: The dashboard.
JOBS: Final[Dashboard] = dashboard(
    "eventq-jobs",
    "Job explorer",
    "Single jobs by their traces: what became of one, which failed, which were slow.",
    (_ONE_JOB, _FOUND, _RATES),
    variables=_VARIABLES,
)
