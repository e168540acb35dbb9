"""Tables: a query for each column, joined by the labels of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from eventq_prometheus.dashboards.model import Json, Panel, Target
from eventq_prometheus.dashboards.panels import limits, named

__all__ = ["Column", "Label", "table"]

_SPARKLINE: Final[Mapping[str, Json]] = {
    "drawStyle": "line",
    "fillOpacity": 20,
    "hideValue": False,
    "lineInterpolation": "linear",
    "lineWidth": 1,
    "showPoints": "never",
    "type": "sparkline",
}
_COLOURED: Final[Mapping[str, Json]] = {"type": "color-text"}


@dataclass(frozen=True, slots=True)
class Label:
    """A column that says what the row is: a label, and the page that its cells lead to."""

    name: str
    title: str
    link: str = ""
    link_title: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of values. `trend`: with its course. `hidden`: asked for its rows only.

    Every query of a table with a trend has to give all rows: an empty one would keep the others from being joined.
    """

    title: str
    expression: str
    unit: str = "short"
    thresholds: Mapping[str, Json] | None = None
    mappings: tuple[Json, ...] = ()
    decimals: int | None = None
    trend: bool = False
    hidden: bool = False
    width: int | None = None

    def override(self) -> Json:
        """Return how the column is shown."""
        cell = _SPARKLINE if self.trend else _COLOURED if self.thresholds or self.mappings else {"type": "auto"}
        properties: dict[str, Json] = {"unit": self.unit, "custom.cellOptions": cell}
        if self.thresholds:
            properties["thresholds"] = self.thresholds
        if self.mappings:
            properties["mappings"] = self.mappings
        if self.decimals is not None:
            properties["decimals"] = self.decimals
        if self.width:
            properties["custom.width"] = self.width
        return named(self.title, properties)


def table(
    title: str,
    description: str,
    labels: tuple[Label, ...],
    columns: tuple[Column, ...],
    *,
    sort_by: str,
    width: int = 24,
    height: int = 9,
    empty: str = "none",
) -> Panel:
    """Return a table with a row for each combination of the labels, the largest of a column first."""
    trends: Mapping[str, Json] = {ref: {"stat": "lastNotNull"} for ref, column in _by_ref(columns) if column.trend}
    return Panel(
        kind="table",
        title=title,
        description=description,
        targets=tuple(_target(column) for column in columns),
        width=width,
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
            "noValue": empty,
            "thresholds": limits(start="text"),
            "unit": "short",
        },
        overrides=(*(_link(label) for label in labels if label.link), *(each.override() for each in columns if not each.hidden)),
        transformations=(
            *_transformed(trends),
            {"id": "merge", "options": {}},
            {"id": "organize", "options": _organized(labels, columns)},
        ),
    )


def _by_ref(columns: tuple[Column, ...]) -> list[tuple[str, Column]]:
    return [(chr(ord("A") + index), column) for index, column in enumerate(columns)]


def _sources(columns: tuple[Column, ...]) -> tuple[str, ...]:
    """Return what Grafana names the columns of the answers."""
    is_one = sum(not column.trend for column in columns) == 1
    value = "Value" if is_one else "Value #{}"
    return tuple(("Trend #{}" if column.trend else value).format(ref) for ref, column in _by_ref(columns))


def _organized(labels: tuple[Label, ...], columns: tuple[Column, ...]) -> Json:
    """Return which columns are shown, in which order, under which titles."""
    sources = _sources(columns)
    titles = {label.name: label.title for label in labels}
    titles |= {source: column.title for source, column in zip(sources, columns, strict=True) if not column.hidden}
    hidden = [source for source, column in zip(sources, columns, strict=True) if column.hidden]
    return {
        "excludeByName": dict.fromkeys(("Time", *hidden), True),
        "indexByName": {name: index for index, name in enumerate(titles)},
        "renameByName": titles,
    }


def _transformed(trends: Mapping[str, Json]) -> tuple[Json, ...]:
    return ({"id": "timeSeriesTable", "options": trends},) if trends else ()


def _target(column: Column) -> Target:
    return Target(column.expression) if column.trend else Target(column.expression, instant=True, format="table")


def _link(label: Label) -> Json:
    return named(label.title, {"links": [{"targetBlank": False, "title": label.link_title, "url": label.link}]})
