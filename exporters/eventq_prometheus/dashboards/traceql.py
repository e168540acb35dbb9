"""TraceQL, written from what the tracer's spans have: an attribute that is not theirs cannot be named."""

from __future__ import annotations

from typing import Final

__all__ = ["ATTRIBUTES", "OF_JOB", "UnknownAttribute", "attempts", "filled", "quantiles", "rate", "search", "shown", "span"]

#: The attributes of spans that are asked for, or shown.
ATTRIBUTES: Final = frozenset({
    "error.type", "eventq.job.attempt", "eventq.job.name", "eventq.job.outcome", "eventq.job.wait_duration",
    "messaging.client.id", "messaging.destination.name", "messaging.message.id", "messaging.system",
})  # fmt: skip
#: What Tempo knows of every span, and what is known of the process that it is about.
_OTHERS: Final = {"name": "name", "service.name": "resource.service.name"}

_OURS: Final = 'span.messaging.system = "eventq"'
_VALUES: Final = {
    "$job_id": "6f1c",
    "$job_name": "",
    "$min_duration": "100ms",
    "$queue": "emails|reports",
    "$trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
}


class UnknownAttribute(Exception):
    """An attribute that no span has."""


def span(attribute: str) -> str:
    """Return an attribute of a span as a query names it."""
    if attribute not in ATTRIBUTES:
        raise UnknownAttribute(attribute)
    # Tempo needs no quotes. The grammar of Grafana's editor does: a name that begins with `event` is a scope to it.
    return f'span."{attribute}"' if attribute.startswith("event") else f"span.{attribute}"


def shown(column: str) -> str:
    """Return what a query selects to have a column: an attribute, the span's name, its service."""
    return _OTHERS.get(column) or span(column)


#: Everything of one job.
OF_JOB: Final = f'{_OURS} && {span("messaging.message.id")} = "$job_id"'


def attempts(*conditions: str) -> str:
    """Return the condition for attempts of the queues and the job names that are chosen, and more."""
    queue = f'{span("messaging.destination.name")} =~ "$queue"'
    name = f'{span("eventq.job.name")} =~ "$job_name.*"'
    return " && ".join((_OURS, "kind = consumer", queue, name, *conditions))


def search(condition: str, columns: tuple[str, ...]) -> str:
    """Return a query for spans, the newest first, with these columns."""
    # Without the hint Tempo stops at the first that it finds, whichever they are.
    return f"{{ {condition} }} | select({', '.join(map(shown, columns))}) with (most_recent=true)"


def rate(condition: str, by: str) -> str:
    """Return how many of such spans there are per second, by an attribute."""
    return f"{{ {condition} }} | rate() by ({shown(by)})"


def quantiles(condition: str, of: str) -> str:
    """Return three quantiles over such spans: of `duration`, or of an attribute."""
    return f"{{ {condition} }} | quantile_over_time({'duration' if of == 'duration' else span(of)}, 0.5, 0.95, 0.99)"


def filled(query: str) -> str:
    """Return a query with something in place of each variable."""
    for variable, value in _VALUES.items():
        query = query.replace(variable, value)
    return query
