"""OpenTelemetry traces made from eventq's event streams: every job's life as spans, also of workers that died in the middle.

`eventq tracer` runs it in a process of its own, `StreamTracer` in yours. `EventqInstrumentor` lets log records say which job they
belong to; `opentelemetry-instrument` finds it by itself. Install it with `pip install "eventq[opentelemetry]"`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventq_opentelemetry.instrumentor import EventqInstrumentor
    from eventq_opentelemetry.tracer import StreamTracer

__all__ = ["EventqInstrumentor", "StreamTracer"]

_HOMES = {"EventqInstrumentor": "instrumentor", "StreamTracer": "tracer"}


def __getattr__(name: str) -> Any:
    # Imported when asked for: without the extra the package can still be looked at, and says what is missing.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
