"""What of the rules can be chosen: the objective, every threshold, every wait, and what the rules are about."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any, Final

from eventq_prometheus.catalogue import CATALOGUE
from eventq_prometheus.promql import duration_text, seconds_of

__all__ = ["RATE_WINDOWS", "SUM_WINDOWS", "RuleSettings", "number_text", "parse_setting"]

#: Windows over which failures are rated from the counters, in seconds.
RATE_WINDOWS: Final = {"5m": 300, "30m": 1800, "1h": 3600, "2h": 7200}
#: Longer ones are summed from the recorded 5m rates: the counters of days would be more samples than a query may load.
SUM_WINDOWS: Final = {"6h": 21_600, "1d": 86_400, "3d": 259_200}

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_MATCHER: Final = rf'{_LABEL.pattern}\s*(?:=|!=|=~|!~)\s*"(?:\\.|[^"\\])*"'
_SELECTOR: Final = re.compile(rf"{_MATCHER}(?:\s*,\s*{_MATCHER})*")
#: Labels that tell series of one queue apart: rules that were grouped by them would be other rules.
_NO_GROUPS: Final = {label for metric in CATALOGUE.values() for label in metric.series_labels} - {"queue"}


def _number(default: float) -> Any:
    return dataclasses.field(default=default, metadata={"kind": "number"})


def _share(default: float) -> Any:
    return dataclasses.field(default=default, metadata={"kind": "share"})


def _seconds(default: float) -> Any:
    return dataclasses.field(default=default, metadata={"kind": "seconds"})


def _wait(default: float) -> Any:
    """Say how long a condition has to hold, or an alert goes on: seconds, and 0 for not at all."""
    return dataclasses.field(default=default, metadata={"kind": "wait"})


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """The parameters of the rules; durations are seconds. Raises ValueError naming the value that cannot be.

    Every duration of the rules is multiplied by `time_scale`. Names of recording rules keep the unscaled window, so that what
    reads them stays the same.
    """

    #: Share of a queue's finished jobs that may be expected to end well; the rest is the error budget.
    objective: float = _share(0.99)
    #: What rules are grouped by. `namespace` comes from Kubernetes; without it nothing is lost.
    labels: tuple[str, ...] = ("namespace", "queue")
    #: Matchers of the exporter's scrape job.
    selector: str = 'job=~".*eventq.*"'
    #: How often the exporter is scraped. No rule looks over less than three scrapes.
    scrape_interval: float = _seconds(15)
    #: How often rules are evaluated.
    interval: float = _seconds(60)
    #: Less than 1 rehearses: with 1/60 an hour is a minute.
    time_scale: float = _number(1)
    #: Page that `runbook_url` points into.
    runbook: str = "docs/runbook.md"
    #: Address of Grafana, for `dashboard_url`; none without.
    dashboards: str = ""

    #: Times the budget: above it over an hour and five minutes is critical.
    page_burn_1h: float = _number(14.4)
    #: Above it over six hours and thirty minutes is critical.
    page_burn_6h: float = _number(6)
    #: Above it over a day and two hours is a warning.
    ticket_burn_1d: float = _number(3)
    #: Above it over three days and six hours is a warning.
    ticket_burn_3d: float = _number(1)
    #: A ratio counts once its threshold stands for so many failures among the jobs of its long window.
    burn_failures: float = _number(3)
    #: Failed jobs of one name in six hours, in a queue too quiet for ratios.
    quiet_failures: float = _number(3)

    #: Age of the oldest job that could run.
    latency_warning: float = _seconds(300)
    #: The age that is critical.
    latency_critical: float = _seconds(1800)
    latency_for: float = _wait(300)
    #: What the backlog would take at the present rate, while it grows.
    drain_warning: float = _seconds(3600)
    drain_for: float = _wait(900)
    no_workers_for: float = _wait(300)
    #: Nothing started for ten minutes, and for so long after.
    not_processing_for: float = _wait(300)
    #: Share of the slots in use, on average over 15 minutes.
    saturation: float = _share(0.95)
    saturation_for: float = _wait(1800)

    #: Stalled runs of one job name in 15 minutes.
    stalled_runs: float = _number(1)
    #: A job that runs so many times longer than 99 % of the last day's attempts.
    run_factor: float = _number(3)
    #: What runs shorter than this is never too long.
    run_minimum: float = _seconds(900)
    #: What is too long in a queue where nothing ended for a day.
    run_unknown: float = _seconds(3600)
    run_for: float = _wait(300)
    #: Failed jobs that an hour adds to those that are kept.
    failed_growth: float = _number(100)
    failed_growth_for: float = _wait(600)
    #: How late a schedule is.
    overdue: float = _seconds(120)
    overdue_for: float = _wait(120)

    redis_for: float = _wait(120)
    exporter_for: float = _wait(300)
    scrape_for: float = _wait(300)
    #: Share of the events kept that are not read yet, by age.
    lag_share: float = _share(0.5)
    #: A lag below this is none.
    lag_minimum: float = _seconds(60)
    lag_for: float = _wait(300)
    #: How much longer an alert on few events goes on after its condition ended.
    keep_firing_for: float = _wait(300)

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for each in dataclasses.fields(self):
            _check(each, getattr(self, each.name))
        self._check_labels()
        for factor in ("page_burn_1h", "page_burn_6h", "ticket_burn_1d", "ticket_burn_3d"):
            if self.burn(factor) >= 1:
                raise ValueError(
                    f"{factor} {getattr(self, factor)!r}: times the budget of objective {self.objective!r} it is "
                    f"{self.burn(factor):.0%} of all jobs, which can never be exceeded"
                )
        for low, high in (("latency_warning", "latency_critical"), ("run_minimum", "run_unknown")):
            if getattr(self, low) > getattr(self, high):
                raise ValueError(f"{low} {getattr(self, low)!r}: is more than {high} {getattr(self, high)!r}")
        self.window(RATE_WINDOWS["5m"])

    def _check_labels(self) -> None:
        if not _SELECTOR.fullmatch(self.selector):
            raise ValueError(f'selector {self.selector!r}: must be matchers such as job="eventq", with commas between them')
        if "queue" not in self.labels or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels {self.labels!r}: must have queue among them, and nothing twice")
        for label in self.labels:
            if not _LABEL.fullmatch(label) or label in _NO_GROUPS:
                raise ValueError(f"labels {self.labels!r}: {label!r} is not queue nor a label that Prometheus gives to targets")

    @property
    def by(self) -> str:
        """The grouping labels as PromQL takes them."""
        return ", ".join(self.labels)

    @property
    def target_by(self) -> str:
        """What rules about the exporter are grouped by: its scrape job instead of a queue."""
        return ", ".join([label for label in self.labels if label not in ("queue", "job")] + ["job"])

    @property
    def matched_labels(self) -> tuple[str, ...]:
        """The labels that the selector is about."""
        return tuple(re.findall(rf"({_LABEL.pattern})\s*(?:=|!)", re.sub(r'"(?:\\.|[^"\\])*"', '""', self.selector)))

    @property
    def every(self) -> float:
        """Seconds between two evaluations; more often than it is scraped tells nothing new."""
        return max(self.interval * self.time_scale, self.scrape_interval)

    @property
    def budget(self) -> float:
        """The share of jobs that may fail."""
        return 1 - self.objective

    def burn(self, factor: str) -> float:
        """Return the share of failed jobs at which a burn alert is due."""
        return float(getattr(self, factor)) * self.budget

    def jobs_enough(self, factor: str) -> int:
        """Return of how many jobs the threshold of a burn alert is several failures, not one unlucky job."""
        return math.ceil(round(self.burn_failures / self.burn(factor), 6))

    def series(self, name: str, *matchers: str) -> str:
        """Return the exporter's series of a metric."""
        return f"{name}{{{', '.join((self.selector, *matchers))}}}"

    def window(self, seconds: float) -> str:
        """Return a range, scaled. Raises ValueError for one too short to hold three scrapes or evaluations."""
        scaled, least = seconds * self.time_scale, 3 * self.every
        if scaled < least:
            raise ValueError(
                f"time_scale {self.time_scale!r}: a window of {duration_text(seconds)} becomes {duration_text(scaled)}, and "
                f"scrape_interval {self.scrape_interval!r} and interval {self.interval!r} allow {duration_text(least)} at least"
            )
        return duration_text(scaled)

    def duration(self, seconds: float) -> str:
        """Return a duration as rule files have it, scaled."""
        return duration_text(seconds * self.time_scale)

    def limit(self, seconds: float) -> str:
        """Return a number of seconds to compare with, scaled."""
        return number_text(seconds * self.time_scale)


def number_text(value: float) -> str:
    """Return a number without the noise of binary fractions."""
    return f"{value:.10g}"


def parse_setting(text: str) -> tuple[str, Any]:
    """Return name and value of `NAME=VALUE`: a duration is seconds or `5m`, labels have commas. Raises ValueError."""
    name, sign, value = text.partition("=")
    fields = {each.name: each for each in dataclasses.fields(RuleSettings)}
    if not sign or name not in fields:
        raise ValueError(f"{text!r}: must be NAME=VALUE, with a name of {', '.join(fields)}")
    kind = fields[name].metadata.get("kind")
    if name == "labels":
        return name, tuple(label.strip() for label in value.split(","))
    if kind is None:
        return name, value
    try:
        return name, seconds_of(value) if kind in ("seconds", "wait") and value[-1:].isalpha() else float(value)
    except ValueError:
        wanted = "a number" if kind in ("number", "share") else "seconds, or a duration such as 30s, 5m or 1h30m"
        raise ValueError(f"{name} {value!r}: must be {wanted}") from None


def _check(field: dataclasses.Field[Any], value: object) -> None:
    kind = field.metadata.get("kind")
    if kind is None:
        expected = tuple if field.name == "labels" else str
        if not isinstance(value, expected):
            raise ValueError(f"{field.name} {value!r}: must be a {expected.__name__}")
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{field.name} {value!r}: must be a number")
    if kind == "share" and not 0 < value < 1:
        raise ValueError(f"{field.name} {value!r}: must lie between 0 and 1")
    if value < 0 or (value == 0 and kind != "wait"):
        raise ValueError(f"{field.name} {value!r}: must be {'at least' if kind == 'wait' else 'more than'} 0")
