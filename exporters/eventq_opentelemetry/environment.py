"""What to export with, as OpenTelemetry's environment variables say it."""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

from eventq import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk._logs.export import LogRecordExporter
    from opentelemetry.sdk.trace.export import SpanExporter

#: OpenTelemetry's default, where nothing is said.
_PROTOCOL: Final = "http/protobuf"
_OTLP: Final = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def span_exporter() -> SpanExporter:
    """Return the exporter of OTEL_TRACES_EXPORTER: otlp if nothing is said. Raises ConfigurationError."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise ConfigurationError("OTEL_SDK_DISABLED 'true': a tracer that may not send anything has nothing to do")
    found: SpanExporter | None = _exporter("traces", "otlp")
    if found is None:
        raise ConfigurationError("OTEL_TRACES_EXPORTER 'none': a tracer that exports no spans has nothing to do")
    return found


def log_exporter() -> LogRecordExporter | None:
    """Return the exporter of OTEL_LOGS_EXPORTER, None if nothing is said: what takes traces need not take logs."""
    found: LogRecordExporter | None = _exporter("logs", "none")
    return found


def meter_provider() -> MeterProvider | None:
    """Return a provider that exports by OTEL_METRICS_EXPORTER, None if nothing is said. Raises ConfigurationError."""
    found: Any = _exporter("metrics", "none")
    if found is None:
        return None
    # Prometheus is asked for what it wants, the others are told every OTEL_METRIC_EXPORT_INTERVAL ms.
    try:
        reader = found if isinstance(found, MetricReader) else PeriodicExportingMetricReader(found)
    except ValueError as error:
        raise ConfigurationError(f"OTEL_METRIC_EXPORT_INTERVAL: {' '.join(str(error).split())}") from error
    return MeterProvider([reader], shutdown_on_exit=False)


def exception_events() -> bool:
    """Whether exceptions are events of their span: not where OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN says logs only."""
    said = {each.strip() for each in os.environ.get("OTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN", "").split(",")}
    return "logs" not in said or "logs/dup" in said


def _exporter(signal: str, default: str) -> Any:
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    name = os.environ.get(variable, "").strip() or default
    if name == "none":
        return None
    if "," in name:
        raise ConfigurationError(f"{variable} {name!r}: name one; a collector can pass on what it gets to several")
    entry = name
    if name == "otlp":
        specific = os.environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "").strip()
        protocol = specific or os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "").strip() or _PROTOCOL
        if protocol not in _OTLP:
            raise ConfigurationError(f"OTEL_EXPORTER_OTLP_PROTOCOL {protocol!r}: must be {' or '.join(_OTLP)}")
        entry = _OTLP[protocol]
    group = f"opentelemetry_{signal}_exporter"
    found = next(iter(entry_points(group=group, name=entry)), None)
    if found is None:
        known = sorted({each.name for each in entry_points(group=group)} | {"none"})
        raise ConfigurationError(f"{variable} {name!r}: no such exporter is installed; there are {', '.join(known)}")
    try:
        return found.load()()
    except Exception as error:  # whatever an exporter makes of its variables
        raise ConfigurationError(f"{variable} {name!r}: {str(error) or type(error).__name__}") from error
