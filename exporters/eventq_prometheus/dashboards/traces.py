"""Panels that Tempo answers: tables with a row for each span, and a trace."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eventq_prometheus.dashboards.model import Json, Panel, TraceTarget
from eventq_prometheus.dashboards.panels import limits, named
from eventq_prometheus.dashboards.traceql import search

__all__ = ["DURATION", "START", "SpanColumn", "spans_table", "trace"]

START: Final = "Start"
DURATION: Final = "Duration"
#: What Grafana calls the columns that it makes of spans by itself.
_MADE: Final[Mapping[str, str]] = {"Start time": START, "Duration": DURATION, "traceIdHidden": "Trace"}
#: What it calls those of what a query selects, where that is not the name of the attribute.
_CALLED: Final[Mapping[str, str]] = {"name": "Name"}
#: What it shows besides: its own, and what a query has conditions for.
_LEFT_OUT: Final = ("Span ID", "Trace Service", "Trace Name", "kind", "messaging.system", "status")


@dataclass(frozen=True, slots=True)
class SpanColumn:
    """A column: an attribute, the span's `name` or its `service.name`. `is_number`: a number, in a unit."""

    source: str
    title: str
    unit: str = "string"
    is_number: bool = False
    width: int | None = None

    @property
    def called(self) -> str:
        """Return what Grafana calls it before it is renamed."""
        return _CALLED.get(self.source, self.source)

    def override(self) -> Json:
        """Return how it is shown."""
        return named(self.title, {"unit": self.unit, **({"custom.width": self.width} if self.width else {})})


def spans_table(
    title: str,
    description: str,
    condition: str,
    columns: tuple[SpanColumn, ...],
    link: tuple[str, str, str],
    *,
    sort_by: str = START,
    height: int = 9,
) -> Panel:
    """Return a table with a row for each span that a condition finds. link: of which column, its text, where it leads."""
    column, text, url = link
    return Panel(
        kind="table",
        title=title,
        description=description,
        targets=(TraceTarget(search(condition, tuple(each.source for each in columns))),),
        width=24,
        height=height,
        options={
            "cellHeight": "sm",
            "frameIndex": 0,
            "showHeader": True,
            "sortBy": [{"desc": True, "displayName": sort_by}],
        },
        field={
            "color": {"mode": "thresholds"},
            "custom": {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False},
            "thresholds": limits(start="text"),
            # An id of digits only is no number to be shortened.
            "unit": "string",
        },
        overrides=(
            named(DURATION, {"unit": "ns"}),
            *(each.override() for each in columns),
            named(column, {"links": [{"targetBlank": False, "title": text, "url": url}]}),
        ),
        transformations=_transformed(columns),
    )


def _transformed(columns: tuple[SpanColumn, ...]) -> tuple[Json, ...]:
    conversions = [{"destinationType": "number", "targetField": each.called} for each in columns if each.is_number]
    titles = {"Start time": START} | {each.called: each.title for each in columns} | dict(_MADE)
    organized: Json = {
        "excludeByName": dict.fromkeys(_LEFT_OUT, True),
        "indexByName": {name: index for index, name in enumerate(titles)},
        "renameByName": titles,
    }
    return (
        # Grafana takes every attribute for text.
        {"id": "convertFieldType", "options": {"conversions": conversions, "fields": {}}},
        {"id": "organize", "options": organized},
    )


def trace(title: str, description: str, trace_id: str, *, height: int = 14) -> Panel:
    """Return all spans of a trace, as bars in time."""
    return Panel(
        kind="traces",
        title=title,
        description=description,
        targets=(TraceTarget(trace_id),),
        width=24,
        height=height,
        options={},
        field={},
    )
