"""The trace context of whoever adds a job, as it is stored with it. Only the OpenTelemetry API is needed; where it is not used
nothing is stored, and nothing is paid but a look.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry import trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, get_current
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from eventq.codec import encode_json

_BAGGAGE_BYTES: Final = 8192

_propagator = TraceContextTextMapPropagator()
_baggage_propagator = W3CBaggagePropagator()


def caller_fragment(service: str) -> str:
    """Return the caller's `"traceparent":"…"`, its tracestate and service where there are any; '' outside a trace."""
    context = get_current()
    if not context or not trace.get_current_span(context).get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context)
    if service:
        carrier["service"] = service
    return encode_json(carrier, "trace context")[1:-1]


def caller_link() -> str:
    """Return `"link":"…"` with the caller's traceparent; '' outside a trace."""
    if not trace.get_current_span().get_span_context().is_valid:
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return encode_json({"link": carrier["traceparent"]}, "trace context")[1:-1]


def caller_baggage() -> str:
    """Return the caller's baggage as its header says it, '' for none. What is beyond 8 KiB, W3C's limit, is left out."""
    context = get_current()
    if not context:
        return ""
    carrier: dict[str, str] = {}
    try:
        _baggage_propagator.inject(carrier, context)
    except UnicodeError:  # what is no text cannot travel; the job can
        return ""
    text = carrier.get("baggage", "")
    return text if len(text) <= _BAGGAGE_BYTES else text[: text.rfind(",", 0, _BAGGAGE_BYTES) + 1].rstrip(",")


def with_baggage(text: str) -> Context:
    """Return a context with nothing but this baggage."""
    return _baggage_propagator.extract({"baggage": text}, Context())


def is_recording() -> bool:
    """Whether somebody made spans recordable in this process: an SDK is set up."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)


def root_sampled(trace_id: int, name: str) -> bool:
    """What this process' sampler says of a job added outside of any trace; without an SDK: yes.

    `sampler` is the SDK's public name for it. The tracer asks its own in the same words, so the two agree where they are set up
    alike (OTEL_TRACES_SAMPLER).
    """
    sampler: Any = getattr(trace.get_tracer_provider(), "sampler", None)
    if sampler is None:
        return True
    # An empty context: else a parent-based sampler would take the current span, which is the one it is asked about.
    return bool(sampler.should_sample(Context(), trace_id, name, trace.SpanKind.PRODUCER).decision.is_sampled())
