"""The kinds of panels that the dashboards use, each with the options that make them look alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventq_prometheus.dashboards.model import Json, Panel, Target, TraceTarget

__all__ = [
    "NAMED_BY_QUEUE",
    "bar_gauge",
    "heatmap",
    "limits",
    "mapped",
    "named",
    "quantiles",
    "stat",
    "state_timeline",
    "time_series",
]

#: The legend of a series per queue; what has no namespace has an empty one.
NAMED_BY_QUEUE: Final = "{{queue}} {{namespace}}"

_LAST: Final[Mapping[str, Json]] = {"calcs": ["lastNotNull"], "fields": "", "values": False}
_TOOLTIP: Final[Mapping[str, Json]] = {"mode": "multi", "sort": "desc"}
_SEEN: Final[Mapping[str, Json]] = {"legend": False, "tooltip": False, "viz": False}


def limits(*steps: tuple[float, str], start: str = "green") -> Mapping[str, Json]:
    """Return thresholds: the colour below the first limit, and the colour from each limit on."""
    first: Json = {"color": start, "value": None}
    return {"mode": "absolute", "steps": [first, *({"color": color, "value": value} for value, color in steps)]}


#: No limit that means anything.
_PLAIN: Final = limits(start="blue")


def mapped(texts: Mapping[str, tuple[str, str]]) -> Json:
    """Return a value mapping: the text and its colour by the value."""
    options: Mapping[str, Json] = {
        value: {"color": color, "index": index, "text": text} for index, (value, (text, color)) in enumerate(texts.items())
    }
    return {"options": options, "type": "value"}


def named(title: str, properties: Mapping[str, Json]) -> Json:
    """Return an override of the series or column that has this title."""
    listed = [{"id": name, "value": value} for name, value in properties.items()]
    return {"matcher": {"id": "byName", "options": title}, "properties": listed}


def stat(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    thresholds: Mapping[str, Json] = _PLAIN,
    instant: bool = False,
    mappings: tuple[Json, ...] = (),
    empty: str = "none",
    decimals: int | None = None,
    width: int = 3,
) -> Panel:
    """Return one number, with its course below it unless it is about the whole time shown."""
    return Panel(
        kind="stat",
        title=title,
        description=description,
        targets=(Target(expression, instant=instant),),
        width=width,
        height=4,
        options={
            "colorMode": "value",
            "graphMode": "none" if instant or mappings else "area",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": _LAST,
            "showPercentChange": False,
            "textMode": "auto",
            "wideLayout": True,
        },
        field={
            "color": {"mode": "thresholds"},
            **({} if decimals is None else {"decimals": decimals}),
            "mappings": mappings,
            "noValue": empty,
            "thresholds": thresholds,
            "unit": unit,
        },
    )


def time_series(
    title: str,
    description: str,
    targets: tuple[Target, ...] | tuple[TraceTarget],
    unit: str,
    *,
    width: int = 8,
    height: int = 8,
    thresholds: Mapping[str, Json] | None = None,
    stacked: bool = False,
    bars: bool = False,
    logarithmic: bool = False,
    stepped: bool = False,
    signed: bool = False,
    most: float | None = None,
    overrides: tuple[Json, ...] = (),
) -> Panel:
    """Return lines over time.

    thresholds: drawn as dashed lines. stepped: for what changes at once. signed: values may be below 0. most: the axis' end.
    """
    custom: Mapping[str, Json] = {
        "axisPlacement": "auto",
        "drawStyle": "bars" if bars else "line",
        "fillOpacity": 60 if bars else 30 if stacked else 8,
        "hideFrom": _SEEN,
        "lineInterpolation": "stepAfter" if stepped else "linear",
        "lineWidth": 1,
        "scaleDistribution": {"log": 10, "type": "log"} if logarithmic else {"type": "linear"},
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "thresholdsStyle": {"mode": "dashed" if thresholds else "off"},
    }
    return Panel(
        kind="timeseries",
        title=title,
        description=description,
        targets=targets,
        width=width,
        height=height,
        options={
            "legend": {"calcs": ["lastNotNull", "max"], "displayMode": "table", "placement": "bottom", "showLegend": True},
            "tooltip": _TOOLTIP,
        },
        field={
            "color": {"mode": "palette-classic"},
            "custom": custom,
            **({} if most is None else {"max": most}),
            **({} if logarithmic or signed else {"min": 0}),
            "thresholds": thresholds or limits(),
            "unit": unit,
        },
        overrides=overrides,
        points=60 if bars else None,
    )


def quantiles(expressions: Mapping[str, str], *, exemplars: bool = False) -> tuple[Target, ...]:
    """Return a target for each name and expression; the first one asks for exemplars, as one of them is enough."""
    return tuple(
        Target(expression, name, exemplar=exemplars and index == 0)
        for index, (name, expression) in enumerate(expressions.items())
    )


def heatmap(title: str, description: str, expression: str, *, width: int = 12, height: int = 9) -> Panel:
    """Return how many, by bucket and time; darker is more. The expression gives buckets by `le`, in seconds."""
    return Panel(
        kind="heatmap",
        title=title,
        description=description,
        targets=(Target(expression, "{{le}}", format="heatmap", exemplar=True),),
        width=width,
        height=height,
        options={
            "calculate": False,
            "cellGap": 1,
            "cellValues": {"decimals": 0, "unit": "short"},
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Blues",
                "steps": 64,
            },
            "exemplars": {"color": "rgba(255,0,255,0.7)"},
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "auto", "value": "runs"},
            "showValue": "never",
            "tooltip": {"mode": "single", "showColorScale": False, "yHistogram": True},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": "s"},
        },
        field={"custom": {"hideFrom": _SEEN, "scaleDistribution": {"type": "linear"}}, "unit": "s"},
        points=90,
    )


def bar_gauge(
    title: str,
    description: str,
    target: Target,
    unit: str,
    *,
    width: int = 8,
    height: int = 8,
    thresholds: Mapping[str, Json] = _PLAIN,
    least: float | None = 0,
    most: float | None = None,
    empty: str = "none",
) -> Panel:
    """Return a bar for each series. `least`, `most`: where a bar is empty and full, where the values do not say."""
    return Panel(
        kind="bargauge",
        title=title,
        description=description,
        targets=(target,),
        width=width,
        height=height,
        options={
            "displayMode": "basic",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": False},
            "maxVizHeight": 32,
            "minVizHeight": 14,
            "minVizWidth": 8,
            "namePlacement": "left",
            "orientation": "horizontal",
            "reduceOptions": _LAST,
            "showUnfilled": True,
            "sizing": "auto",
            "valueMode": "color",
        },
        field={
            "color": {"mode": "thresholds"},
            **({} if most is None else {"max": most}),
            **({} if least is None else {"min": least}),
            "noValue": empty,
            "thresholds": thresholds,
            "unit": unit,
        },
    )


def state_timeline(
    title: str,
    description: str,
    target: Target,
    mapping: Json,
    *,
    width: int = 24,
    height: int = 7,
) -> Panel:
    """Return bars over time, one for each series, coloured by what the mapping makes of the value."""
    return Panel(
        kind="state-timeline",
        title=title,
        description=description,
        targets=(target,),
        width=width,
        height=height,
        options={
            "alignValue": "left",
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.8,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        },
        field={
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 75, "hideFrom": _SEEN, "lineWidth": 0},
            "mappings": [mapping],
            "thresholds": limits(start="text"),
            "unit": "short",
        },
        points=200,
    )
