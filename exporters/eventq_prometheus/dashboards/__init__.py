"""The Grafana dashboards: four of the exporter's metrics and one of traces, made here, committed under grafana/dashboards/."""

from __future__ import annotations

from typing import Final, NamedTuple

from eventq_prometheus.dashboards.fleet import FLEET
from eventq_prometheus.dashboards.jobs import JOBS
from eventq_prometheus.dashboards.model import Dashboard, Target, TraceTarget
from eventq_prometheus.dashboards.pipeline import PIPELINE
from eventq_prometheus.dashboards.query import filled
from eventq_prometheus.dashboards.queue import QUEUE_DETAIL
from eventq_prometheus.dashboards.workers import PER_WORKER, WORKERS

__all__ = ["DASHBOARDS", "OPT_IN", "PanelQuery", "files", "filled", "queries", "trace_queries"]

#: All of them, in the order in which one looks at them.
DASHBOARDS: Final[tuple[Dashboard, ...]] = (FLEET, QUEUE_DETAIL, WORKERS, JOBS, PIPELINE)
#: Dashboard and title of the panels that show nothing unless the exporter tells of single workers.
OPT_IN: Final = frozenset((WORKERS.uid, panel.title) for panel in PER_WORKER.panels)


class PanelQuery(NamedTuple):
    """A query, and the panel it belongs to. `is_opt_in`: without data unless the exporter tells of single workers."""

    dashboard: str
    panel: str
    query: str
    is_opt_in: bool


def files() -> dict[str, str]:
    """Return the text of each dashboard by its path below grafana/."""
    return {f"dashboards/{dashboard.uid}.json": dashboard.as_text() for dashboard in DASHBOARDS}


def queries() -> list[PanelQuery]:
    """Return every query of Prometheus of every panel, with variables in it."""
    return [
        PanelQuery(dashboard.uid, panel.title, target.expression, (dashboard.uid, panel.title) in OPT_IN)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for target in panel.targets
        if isinstance(target, Target)
    ]


def trace_queries() -> list[PanelQuery]:
    """Return every query of Tempo of every panel, with variables in it; ids of traces are none."""
    return [
        PanelQuery(dashboard.uid, panel.title, target.query, is_opt_in=False)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for target in panel.targets
        if isinstance(target, TraceTarget) and panel.kind != "traces"
    ]
