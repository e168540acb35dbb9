"""The caller's trace context as a ready JSON fragment, stored with the job. Only the OpenTelemetry API is needed."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventq.codec import encode_json

_propagator = TraceContextTextMapPropagator()


def trace_fragment() -> str:
    """Return `"traceparent":"…"` and, when there is one, `"tracestate":"…"`; '' outside a trace."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return encode_json(carrier, "trace context")[1:-1]
