"""The rules as files: for Prometheus, and for the Prometheus operator in Kubernetes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq_prometheus.promql import duration_text, unknown_names
from eventq_prometheus.rules.exporter_alerts import exporter_alerts
from eventq_prometheus.rules.job_alerts import job_alerts
from eventq_prometheus.rules.model import Alert, Group
from eventq_prometheus.rules.queue_alerts import queue_alerts
from eventq_prometheus.rules.recording import recordings
from eventq_prometheus.rules.settings import RuleSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["files", "kubernetes_rules", "prometheus_rules", "recorded_metrics", "rule_groups", "service_monitor"]

_COMMAND: Final = "python tools/make_grafana.py"
_NAME: Final = {"app.kubernetes.io/name": "eventq"}


def rule_groups(settings: RuleSettings | None = None) -> tuple[Group, ...]:
    """Return every rule. Raises ValueError where one names a metric or a label that does not exist."""
    settings = settings or RuleSettings()
    groups = (
        Group("eventq_recording", recordings(settings)),
        Group("eventq_jobs", job_alerts(settings)),
        Group("eventq_queues", queue_alerts(settings)),
        Group("eventq_exporter", exporter_alerts(settings)),
    )
    recorded = {each.name: each.labels for each in groups[0].rules if not isinstance(each, Alert)}
    for rule in (rule for group in groups for rule in group.rules):
        # What the user's own labels and matchers are about is for the user to know.
        labels = {*settings.labels, *settings.matched_labels}
        if unknown := unknown_names(rule.expression, recorded, labels - {"queue"}):
            raise ValueError(f"{rule.name}: nothing has the name {', '.join(unknown)}")
    return groups


def recorded_metrics(settings: RuleSettings | None = None) -> dict[str, tuple[str, ...]]:
    """Return the name of every recording rule with its labels."""
    return {rule.name: rule.labels for rule in recordings(settings or RuleSettings())}


def prometheus_rules(settings: RuleSettings | None = None, *, made_by: str = _COMMAND) -> str:
    """Return a rule file of Prometheus. made_by: the command that its first line names."""
    return _text(_spec(settings or RuleSettings()), made_by)


def kubernetes_rules(settings: RuleSettings | None = None, *, made_by: str = _COMMAND) -> str:
    """Return a PrometheusRule of the Prometheus operator."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "eventq", "labels": _NAME},
        "spec": _spec(settings or RuleSettings()),
    }
    return _text(manifest, made_by)


def service_monitor(settings: RuleSettings | None = None) -> str:
    """Return a ServiceMonitor for the exporter's service, which has the label `app.kubernetes.io/name: eventq-exporter`."""
    settings = settings or RuleSettings()
    label = "app.kubernetes.io/name"
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "eventq", "labels": _NAME},
        "spec": {
            "jobLabel": label,
            "selector": {"matchLabels": {label: "eventq-exporter"}},
            "endpoints": [{"port": "metrics", "interval": duration_text(settings.scrape_interval)}],
        },
    }
    return _text(manifest, _COMMAND)


def files() -> dict[str, str]:
    """Return the text of each generated file by its path below grafana/."""
    return {
        "alerts/eventq.rules.yml": prometheus_rules(),
        "kubernetes/prometheusrule.yaml": kubernetes_rules(),
        "kubernetes/servicemonitor.yaml": service_monitor(),
    }


def _spec(settings: RuleSettings) -> dict[str, Any]:
    return {"groups": [group.as_mapping(settings) for group in rule_groups(settings)]}


def _text(document: Mapping[str, Any], made_by: str) -> str:
    head = f"# Made by `{made_by}`: do not edit. `eventq alert-rules --help` says how to have other thresholds.\n"
    # Here, since PyYAML comes with the extra: the command that says so has to be importable without it.
    from eventq_prometheus.rules.yaml_text import dump

    body = dump(document)
    return head + body
