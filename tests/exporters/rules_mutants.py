"""The committed alerts with one condition less each: the tests of the rules have to notice every one of them."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ALERTS = Path(__file__).parents[2] / "grafana" / "alerts"
RULES = ALERTS / "eventq.rules.yml"
TESTS = ALERTS / "eventq.tests.yml"

_OPERATOR = re.compile(r"\s*(and|or|unless)\b")
_COMPARED = re.compile(r"(>=?|==) ([\d.]+)")


@dataclass(frozen=True)
class Mutant:
    """An alert that asks for less. place: group and rule. what: how it differs."""

    place: tuple[int, int]
    name: str
    what: str
    rule: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def read(path: Path) -> Any:
    """Return a YAML file's content."""
    return yaml.safe_load(path.read_text())


def alerts() -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Yield the committed alerts, each with its place."""
    for at, group in enumerate(read(RULES)["groups"]):
        for index, rule in enumerate(group["rules"]):
            if "alert" in rule:
                yield (at, index), rule


def mutants() -> Iterator[Mutant]:
    """Yield every alert without its wait, without each of its conditions, and with each of its thresholds let down."""
    for place, rule in alerts():
        severity = rule["labels"]["severity"]
        for what, changed in _changes(rule):
            yield Mutant(place, rule["alert"], f"{severity}, {what}", changed)


def survives(mutant: Mutant, folder: Path) -> bool:
    """Whether the tests of its alert pass with it. Raises AssertionError when it is no valid rule."""
    rules, tests = read(RULES), read(TESTS)
    group, index = mutant.place
    rules["groups"][group]["rules"][index] = mutant.rule
    tests["tests"] = [
        test for test in tests["tests"] if any(each["alertname"] == mutant.name for each in test.get("alert_rule_test", ()))
    ]
    (folder / RULES.name).write_text(yaml.safe_dump(rules))
    (folder / TESTS.name).write_text(yaml.safe_dump(tests))
    done = subprocess.run(
        ["promtool", "test", "rules", TESTS.name], cwd=folder, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0 or "got:" in done.stdout + done.stderr, done.stderr
    return done.returncode == 0


def _changes(rule: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for wait in ("for", "keep_firing_for"):
        if wait in rule:
            yield f"without {wait}", {name: value for name, value in rule.items() if name != wait}
    for what, expression in (*_without_conditions(rule["expr"]), *_without_thresholds(rule["expr"])):
        yield what, {**copy.deepcopy(rule), "expr": expression}


def _without_conditions(expression: str) -> Iterator[tuple[str, str]]:
    lines = expression.split("\n")
    for at, line in enumerate(lines):
        if line == "or":
            yield f"what is above or, line {at}", "\n".join(lines[:at])
            yield f"what is below or, line {at}", "\n".join(lines[at + 1 :])
        elif _OPERATOR.match(line) and line.strip() != "or":
            ends = (end for end in range(at + 1, len(lines)) if _OPERATOR.match(lines[end]) or lines[end][:1] in "()")
            yield f"without line {at}: {line.strip()[:40]}", "\n".join(lines[:at] + lines[next(ends, len(lines)) :])


def _without_thresholds(expression: str) -> Iterator[tuple[str, str]]:
    for found in _COMPARED.finditer(expression):
        if found[0] == ">= 0":
            continue  # asks whether there is a number at all: any lower limit asks the same
        lower = ">= 0" if found[1] == "==" else ">= -1"
        yield f"{lower} for {found[0]} at {found.start()}", expression[: found.start()] + lower + expression[found.end() :]
