"""Who this process says it is, for traces."""

from __future__ import annotations

import os
from typing import Any, Final

from opentelemetry import trace

#: What is told of a process, beside everything that begins with `service.`.
_TOLD: Final = frozenset({"deployment.environment.name", "host.name", "process.pid"})
_TEXT: Final = 256


def resource() -> dict[str, str]:
    """Return what is told of this process: its `service.*`, environment, host and pid, as its SDK was told; by OTEL_SERVICE_NAME
    where there is none.
    """
    attributes: Any = getattr(getattr(trace.get_tracer_provider(), "resource", None), "attributes", None)
    if attributes is None:
        name = os.environ.get("OTEL_SERVICE_NAME", "")
        return {"service.name": _plain(name)} if name else {}
    told = {str(key): _plain(value) for key, value in attributes.items() if key in _TOLD or key.startswith("service.")}
    # What the SDK says where it was told nothing is no name.
    if told.get("service.name", "").startswith("unknown_service"):
        del told["service.name"]
    return told


def _plain(value: object) -> str:
    # An environment may hold what is no text: that must not keep a job from being added.
    return str(value)[:_TEXT].encode("utf-8", "replace").decode()


_service: tuple[object, str] | None = None


def service_name() -> str:
    """Return this process' `service.name`, '' for none."""
    global _service
    provider = trace.get_tracer_provider()
    if _service is None or _service[0] is not provider:
        _service = provider, resource().get("service.name", "")
    return _service[1]
