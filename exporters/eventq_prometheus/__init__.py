"""Prometheus metrics read from eventq's event stream.

`eventq exporter` runs it as a process of its own. In a program: `async with PrometheusExporter(url=...) as exporter`, then
`make_asgi_app(exporter)` where there is an ASGI application to mount it in, or `registry=` to have it collected with
everything else; without an event loop `run_in_thread(exporter)` and `make_wsgi_app(exporter)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventq_prometheus.catalogue import CATALOGUE
    from eventq_prometheus.exporter import PrometheusExporter
    from eventq_prometheus.pages import make_asgi_app, make_wsgi_app
    from eventq_prometheus.running import run_in_thread

__all__ = ["CATALOGUE", "PrometheusExporter", "make_asgi_app", "make_wsgi_app", "run_in_thread"]

_HOMES = {
    "CATALOGUE": "catalogue",
    "PrometheusExporter": "exporter",
    "make_asgi_app": "pages",
    "make_wsgi_app": "pages",
    "run_in_thread": "running",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, and not before: the rules and dashboards need no prometheus-client."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
