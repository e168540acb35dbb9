"""Recording and alerting rules for Prometheus, made from parameters and checked against the catalogue of metrics."""

from __future__ import annotations

from eventq_prometheus.rules.manifests import (
    files,
    kubernetes_rules,
    prometheus_rules,
    recorded_metrics,
    rule_groups,
    service_monitor,
)
from eventq_prometheus.rules.settings import RuleSettings, parse_setting

__all__ = [
    "RuleSettings",
    "files",
    "kubernetes_rules",
    "parse_setting",
    "prometheus_rules",
    "recorded_metrics",
    "rule_groups",
    "service_monitor",
]
