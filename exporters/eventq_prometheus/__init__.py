"""Prometheus metrics read from eventq's event stream.

The exporter will run in a process of its own, follow the events of every queue, and serve counters, gauges and
histograms over HTTP. This version holds nothing yet: the package exists so that its name and its `[prometheus]` extra
are settled.
"""

__all__: list[str] = []
