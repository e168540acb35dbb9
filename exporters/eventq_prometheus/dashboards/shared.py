"""What all dashboards share: variables, the bar of links, the marks of firing alerts, and the limits that colours stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from eventq_prometheus.dashboards.model import DATA_SOURCE, Dashboard, Json, Row
from eventq_prometheus.dashboards.panels import limits
from eventq_prometheus.dashboards.query import ALERTS, series

__all__ = [
    "AGE_LIMITS",
    "DRAIN_LIMITS",
    "DRAIN_SECONDS",
    "ERROR_BUDGET",
    "FAILED_LIMITS",
    "FAST_BURN",
    "LAG_SECONDS",
    "LAG_SHARE",
    "LATE_SECONDS",
    "NONE_IS_BAD",
    "OVERDUE_SECONDS",
    "SATURATED",
    "SOME_IS_BAD",
    "SOME_IS_WORTH_A_LOOK",
    "TAG",
    "UTILISATION_LIMITS",
    "VERY_LATE_SECONDS",
    "annotation",
    "dashboard",
    "source_variable",
]

TAG: Final = "eventq"
# What follows is where the alerts are, unless somebody chose other rules; a test compares the two.
#: The share of jobs that may fail, and six times as many.
ERROR_BUDGET: Final = 0.01
FAST_BURN: Final = 0.06
#: How long a job may wait, and how long is far too long.
LATE_SECONDS: Final = 300
VERY_LATE_SECONDS: Final = 1800
#: How long the backlog may take.
DRAIN_SECONDS: Final = 3600
#: The share of slots in use from which on jobs begin to wait.
SATURATED: Final = 0.95
#: How late a schedule may be.
OVERDUE_SECONDS: Final = 120
#: The lag that is one, and the share of the events kept that it may reach.
LAG_SECONDS: Final = 60
LAG_SHARE: Final = 0.5

FAILED_LIMITS: Final = limits((ERROR_BUDGET, "orange"), (FAST_BURN, "red"))
AGE_LIMITS: Final = limits((LATE_SECONDS, "orange"), (VERY_LATE_SECONDS, "red"))
#: Below 0: it is never drained.
DRAIN_LIMITS: Final = limits((0, "green"), (DRAIN_SECONDS, "orange"), start="red")
UTILISATION_LIMITS: Final = limits((0.8, "orange"), (SATURATED, "red"))
NONE_IS_BAD: Final = limits((1, "green"), start="red")
#: What `increase` makes of a single one is a little more or less than 1.
SOME_IS_BAD: Final = limits((0.5, "red"))
SOME_IS_WORTH_A_LOOK: Final = limits((0.5, "orange"))


def dashboard(
    uid: str,
    title: str,
    description: str,
    rows: tuple[Row, ...],
    *,
    period: str = "3h",
    annotations: tuple[Json, ...] = (),
    variables: tuple[Json, ...] = (),
) -> Dashboard:
    """Return a dashboard with what all of them have."""
    return Dashboard(
        uid=uid,
        title=f"eventq / {title}",
        description=description,
        rows=rows,
        variables=(*_VARIABLES, *variables),
        annotations=(_BUILT_IN, _FIRING, *annotations),
        links=_LINKS,
        tags=(TAG,),
        period=period,
    )


def annotation(name: str, expression: str, title: str, text: str, *, tags: str, color: str) -> Json:
    """Return marks on every panel, for as long as the expression has a series."""
    # Grafana 10 reads expr and step, later ones the target.
    return {
        "datasource": DATA_SOURCE,
        "enable": True,
        "expr": expression,
        "hide": False,
        "iconColor": color,
        "name": name,
        "step": "60s",
        "tagKeys": tags,
        "target": {"expr": expression, "interval": "60s", "refId": "Anno"},
        "textFormat": text,
        "titleFormat": title,
        "useValueForTime": False,
    }


def _variable(name: str, title: str, metric: str, every: str) -> Json:
    return {
        "allValue": every,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "datasource": DATA_SOURCE,
        "hide": 0,
        "includeAll": True,
        "label": title,
        "multi": True,
        "name": name,
        "options": [],
        "query": f"label_values({metric}, {name})",
        "refresh": 2,
        "regex": "",
        "skipUrlSync": False,
        "sort": 1,
        "type": "query",
    }


def source_variable(name: str, title: str, kind: str) -> Json:
    """Return a variable for a data source of a kind."""
    return {
        "hide": 0,
        "includeAll": False,
        "label": title,
        "multi": False,
        "name": name,
        "options": [],
        "query": kind,
        "refresh": 1,
        "regex": "",
        "skipUrlSync": False,
        "type": "datasource",
    }


_VARIABLES: Final[tuple[Json, ...]] = (
    source_variable("datasource", "Data source", "prometheus"),
    _variable("job", "Job", "eventq_up", ".+"),
    # Targets without a namespace, and metrics without a queue, are to be shown: an empty label matches this.
    _variable("namespace", "Namespace", 'eventq_up{job=~"$job"}', ".*"),
    _variable("queue", "Queue", series("eventq_queue_paused").replace(', queue=~"$queue"', ""), ".*"),
)
_LINKS: Final[tuple[Json, ...]] = (
    {
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "tags": [TAG],
        "targetBlank": False,
        "title": "eventq",
        "tooltip": "The other dashboards of eventq, at the same time and for the same queues",
        "type": "dashboards",
        "url": "",
    },
)
_BUILT_IN: Final[Mapping[str, Json]] = {
    "builtIn": 1,
    "datasource": {"type": "grafana", "uid": "-- Grafana --"},
    "enable": True,
    "hide": True,
    "iconColor": "rgba(0, 211, 255, 1)",
    "name": "Annotations & Alerts",
    "type": "dashboard",
}
# A label that is not there comes out as its own name, so the text has only one that always is.
_FIRING: Final = annotation(
    "Firing alerts", ALERTS, "{{alertname}}", "{{severity}}", tags="namespace,queue,severity", color="red"
)
