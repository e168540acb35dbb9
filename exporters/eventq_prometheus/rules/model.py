"""Recording rules, alerts and groups, and the words that their texts share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventq_prometheus.promql import duration_text

if TYPE_CHECKING:
    from eventq_prometheus.rules.settings import RuleSettings

__all__ = ["COUNT", "DURATION", "PERCENT", "QUEUE", "Alert", "Group", "Recording", "Severity", "label"]

#: What rule files hold.
Rule = dict[str, str | dict[str, str]]

#: The alert's value as a whole number, a share, a length of time.
COUNT: Final = '{{ $value | printf "%.0f" }}'
PERCENT: Final = "{{ $value | humanizePercentage }}"
DURATION: Final = "{{ $value | humanizeDuration }}"


def label(name: str) -> str:
    """Return what shows a label of the alert."""
    return f"{{{{ $labels.{name} }}}}"


QUEUE: Final = f"queue {label('queue')}"


class Severity:
    """What is to be done about an alert: wake somebody, open a ticket, nothing."""

    critical: Final = "critical"
    warning: Final = "warning"
    none: Final = "none"


@dataclass(frozen=True, slots=True)
class Recording:
    """A series that is computed beforehand. labels: those it has."""

    name: str
    expression: str
    labels: tuple[str, ...]

    def as_rule(self) -> Rule:
        """Return it as rule files have it."""
        return {"record": self.name, "expr": self.expression}


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert. wait: how long its expression has to hold. keep: how long it goes on after. Both in seconds, 0 for not at all.

    summary: a sentence that is always the same. description: one with the labels and the value. dashboard: what shows more.
    """

    name: str
    expression: str
    severity: str
    summary: str
    description: str
    dashboard: str
    wait: float = 0
    keep: float = 0

    def as_rule(self, settings: RuleSettings) -> Rule:
        """Return it as rule files have it."""
        rule: Rule = {"alert": self.name, "expr": self.expression}
        if self.wait:
            rule["for"] = settings.duration(self.wait)
        if self.keep:
            rule["keep_firing_for"] = settings.duration(self.keep)
        rule["labels"] = {"severity": self.severity}
        rule["annotations"] = {
            "summary": self.summary,
            "description": self.description,
            "runbook_url": f"{settings.runbook}#{self.name.lower()}",
        } | self._dashboard(settings)
        return rule

    def _dashboard(self, settings: RuleSettings) -> dict[str, str]:
        if not settings.dashboards:
            return {}
        chosen = f"?var-queue={label('queue')}" if label("queue") in self.description else ""
        return {"dashboard_url": f"{settings.dashboards.rstrip('/')}/d/{self.dashboard}{chosen}"}


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    rules: tuple[Recording | Alert, ...]

    def as_mapping(self, settings: RuleSettings) -> dict[str, object]:
        """Return it as rule files have it."""
        rules = [rule.as_rule() if isinstance(rule, Recording) else rule.as_rule(settings) for rule in self.rules]
        return {"name": self.name, "interval": duration_text(settings.every), "rules": rules}
