"""OpenTelemetry traces made from eventq's event stream.

The tracer will run in a process of its own, follow the events of every queue, and turn each job into spans that join
the trace of the code that added it. This version holds nothing yet: the package exists so that its name and its
`[opentelemetry]` extra are settled.
"""

__all__: list[str] = []
