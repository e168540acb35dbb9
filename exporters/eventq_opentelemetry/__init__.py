"""OpenTelemetry traces made from eventq's event streams: every job's life as spans, also of workers that died in the middle.

`eventq tracer` runs it in a process of its own, `StreamTracer` in yours. Install it with `pip install "eventq[opentelemetry]"`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eventq_opentelemetry.tracer import StreamTracer

__all__ = ["StreamTracer"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: without the extra the package can still be looked at, and says what is missing.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from eventq_opentelemetry import tracer

    return getattr(tracer, name)
