"""The files of grafana/ as the programs get them here: other addresses, and all times multiplied by the scale of the rules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from eventq_prometheus.promql import duration_text, seconds_of
from eventq_prometheus.rules import RuleSettings, prometheus_rules

__all__ = ["LEAST", "ROOT", "Addresses", "rule_settings", "write_settings"]

ROOT: Final = Path(__file__).resolve().parents[2]
#: What alertmanager.yml calls the receiver's address.
SINK: Final = "http://sink:9095"
#: Seconds; nothing is done more often.
LEAST: Final = 1.0
_SCRAPE: Final = 15.0
_TIMES: Final = ("group_wait", "group_interval", "repeat_interval")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The port of each program on loopback."""

    exporter: int
    prometheus: int
    alertmanager: int
    sink: int
    spans: int


def rule_settings(scale: float) -> RuleSettings:
    """Return the parameters of the rules for a time scale. Raises ValueError for one that leaves too little of a window."""
    return RuleSettings(time_scale=scale, scrape_interval=max(LEAST, _SCRAPE * min(scale, 1)))


def write_settings(folder: Path, addresses: Addresses, rules: RuleSettings) -> None:
    """Write prometheus.yml with its rules and targets, and alertmanager.yml, into a folder."""
    (folder / "rules").mkdir()
    (folder / "targets").mkdir()
    (folder / "prometheus.yml").write_text((ROOT / "grafana" / "prometheus" / "prometheus.yml").read_text())
    (folder / "rules" / "eventq.rules.yml").write_text(prometheus_rules(rules, made_by="make observe"))
    # The interval of a target can be said with the target, so prometheus.yml stays as it is.
    every = duration_text(rules.scrape_interval)
    pace = {"__scrape_interval__": every, "__scrape_timeout__": every if rules.scrape_interval < 10 else "10s"}
    _write_targets(folder, "exporter", addresses.exporter, pace)
    _write_targets(folder, "alertmanager", addresses.alertmanager, {})
    text = (ROOT / "grafana" / "alertmanager" / "alertmanager.yml").read_text()
    settings = yaml.safe_load(text.replace(SINK, f"http://127.0.0.1:{addresses.sink}"))
    _scale(settings["route"], rules.time_scale)
    (folder / "alertmanager.yml").write_text(_yaml(settings))


def _write_targets(folder: Path, name: str, port: int, labels: dict[str, str]) -> None:
    content = [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]
    (folder / "targets" / f"{name}.yml").write_text(_yaml(content))


def _scale(route: dict[str, Any], scale: float) -> None:
    for name in _TIMES:
        if name in route:
            route[name] = duration_text(max(LEAST, seconds_of(route[name]) * scale))
    for each in route.get("routes", ()):
        _scale(each, scale)


def _yaml(content: object) -> str:
    text: str = yaml.safe_dump(content, sort_keys=False)  # pyright: ignore[reportUnknownMemberType]
    return text
