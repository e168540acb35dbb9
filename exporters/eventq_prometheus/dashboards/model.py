"""What a dashboard is made of, and its JSON: schema v1, which Grafana 10 to 13 load.

A panel's kind, options and field settings are JSON as Grafana has it; where it stands and what it is called are kept here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

__all__ = [
    "COLUMNS",
    "DATA_SOURCE",
    "SCHEMA_VERSION",
    "TRACE_SOURCE",
    "Dashboard",
    "Json",
    "LayoutError",
    "Panel",
    "Row",
    "Target",
    "TraceTarget",
]

Json = Mapping[str, "Json"] | Sequence["Json"] | str | int | float | bool | None

#: The newest that Grafana 11.6 and 12.0 know; newer ones bring it up to date when they load it.
SCHEMA_VERSION: Final = 41
#: How wide a dashboard is.
COLUMNS: Final = 24
DATA_SOURCE: Final[Mapping[str, Json]] = {"type": "prometheus", "uid": "${datasource}"}
#: Where traces are.
TRACE_SOURCE: Final[Mapping[str, Json]] = {"type": "tempo", "uid": "${tempo_datasource}"}
#: How many traces Tempo is asked for, and how many spans of each; it gives 20 and 3 by itself.
_MOST_TRACES: Final = 100


class LayoutError(Exception):
    """A line of panels that is not as wide as the dashboard, or whose panels are not equally high."""


@dataclass(frozen=True, slots=True)
class Target:
    """A query of a panel. `instant`: at the end of the time shown only."""

    source: ClassVar[Mapping[str, Json]] = DATA_SOURCE

    expression: str
    legend: str = ""
    instant: bool = False
    format: str = "time_series"
    exemplar: bool = False

    def as_json(self, ref: str) -> Json:
        """Return what Grafana stores."""
        return {
            "datasource": DATA_SOURCE,
            "editorMode": "code",
            "exemplar": self.exemplar,
            "expr": self.expression,
            "format": self.format,
            "instant": self.instant,
            "legendFormat": self.legend,
            "range": not self.instant,
            "refId": ref,
        }


@dataclass(frozen=True, slots=True)
class TraceTarget:
    """What a panel asks Tempo for: TraceQL, or a trace by its id. Only the first one of a panel would be asked."""

    source: ClassVar[Mapping[str, Json]] = TRACE_SOURCE

    query: str

    def as_json(self, ref: str) -> Json:
        """Return what Grafana stores."""
        return {
            "datasource": TRACE_SOURCE,
            "filters": [],
            "limit": _MOST_TRACES,
            "metricsQueryType": "range",
            "query": self.query,
            "queryType": "traceql",
            "refId": ref,
            "spss": _MOST_TRACES,
            "tableType": "spans",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel and its size. `field`: the defaults of `fieldConfig`. `points`: at most so many per series."""

    kind: str
    title: str
    description: str
    targets: tuple[Target, ...] | tuple[TraceTarget]
    width: int
    height: int
    options: Mapping[str, Json]
    field: Mapping[str, Json]
    overrides: tuple[Json, ...] = ()
    transformations: tuple[Json, ...] = ()
    points: int | None = None

    def as_json(self, number: int, x: int, y: int) -> dict[str, Json]:
        """Return what Grafana stores."""
        return {
            "datasource": self.targets[0].source if self.targets else DATA_SOURCE,
            "description": self.description,
            "fieldConfig": {"defaults": self.field, "overrides": self.overrides},
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "id": number,
            **({"maxDataPoints": self.points} if self.points else {}),
            "options": self.options,
            "targets": [target.as_json(chr(ord("A") + index)) for index, target in enumerate(self.targets)],
            "title": self.title,
            **({"transformations": self.transformations} if self.transformations else {}),
            "type": self.kind,
        }


@dataclass(frozen=True, slots=True)
class Row:
    """A heading and what stands under it, a line of panels after the other. A collapsed one asks nothing until it is opened."""

    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False

    def lines(self) -> Iterator[tuple[Panel, ...]]:
        """Yield the panels line by line."""
        line: list[Panel] = []
        for panel in self.panels:
            line.append(panel)
            if sum(each.width for each in line) >= COLUMNS:
                yield tuple(line)
                line = []
        if line:
            yield tuple(line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A dashboard. `period`: the time it shows when it is opened, back from now."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Json, ...]
    annotations: tuple[Json, ...]
    links: tuple[Json, ...]
    tags: tuple[str, ...]
    period: str

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Return all panels, those of collapsed rows too."""
        return tuple(panel for row in self.rows for panel in row.panels)

    def as_text(self) -> str:
        """Return the dashboard's JSON."""
        content: Json = {
            "annotations": {"list": self.annotations},
            "description": self.description,
            "editable": False,
            "fiscalYearStartMonth": 0,
            "graphTooltip": 1,
            "links": self.links,
            "panels": self._placed(),
            "refresh": "30s",
            "schemaVersion": SCHEMA_VERSION,
            "tags": self.tags,
            "templating": {"list": self.variables},
            "time": {"from": f"now-{self.period}", "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "title": self.title,
            "uid": self.uid,
            "version": 1,
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def _placed(self) -> list[Json]:
        placed: list[Json] = []
        y = 0
        number = 0
        for row in self.rows:
            number += 1
            heading: Mapping[str, Json] = {
                "gridPos": {"h": 1, "w": COLUMNS, "x": 0, "y": y},
                "id": number,
                "title": row.title,
                "type": "row",
            }
            y += 1
            top = y
            under: list[Json] = []
            for line in row.lines():
                _check(line)
                x = 0
                for panel in line:
                    number += 1
                    under.append(panel.as_json(number, x, y))
                    x += panel.width
                y += line[0].height
            placed.append({"collapsed": row.collapsed, **heading, "panels": under if row.collapsed else []})
            placed += [] if row.collapsed else under
            y = top if row.collapsed else y  # what is folded away takes no room
        return placed


def _check(line: tuple[Panel, ...]) -> None:
    named = ", ".join(f"{panel.title} ({panel.width} by {panel.height})" for panel in line)
    if sum(panel.width for panel in line) != COLUMNS:
        raise LayoutError(f"{named}: a line is {COLUMNS} wide")
    if len({panel.height for panel in line}) != 1:
        raise LayoutError(f"{named}: the panels of a line are equally high")
