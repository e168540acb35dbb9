"""Just enough of PromQL to lint it: the selectors of a query, and promtool for whether it is one."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
#: Names in these brackets are labels.
_LABEL_LIST: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_SELECTOR: Final = re.compile(r"(?<![\w$.:])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])\s*(?:\{([^{}]*)\})?\s*(?:\[([^\]]*)\])?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*("\d+")')
_WORDS: Final = frozenset("and or unless bool offset by without on ignoring group_left group_right inf nan".split())


@dataclass(frozen=True, slots=True)
class Selector:
    """A series that a query asks for. `function`: what takes it directly; `window`: what stands in its square brackets."""

    name: str
    matchers: tuple[tuple[str, str, str], ...]
    window: str
    function: str


def selectors(query: str) -> list[Selector]:
    """Return every selector of a query."""
    strings: list[str] = []

    def put_away(found: re.Match[str]) -> str:
        strings.append(found[0][1:-1])
        return f'"{len(strings) - 1}"'

    text = _LABEL_LIST.sub(" ", _STRING.sub(put_away, query))
    found: list[Selector] = []
    for each in _SELECTOR.finditer(text):
        if each[1].lower() in _WORDS or re.search(r"[\d.]$", text[: each.start()]):  # 5m, 1e9
            continue
        called = re.search(r"([a-z_]+)\s*\(\s*$", text[: each.start()])
        matchers = tuple((m[1], m[2], strings[int(m[3][1:-1])]) for m in _MATCHER.finditer(each[2] or ""))
        found.append(Selector(each[1], matchers, each[3] or "", called[1] if called else ""))
    return found


def promql_errors(queries: Iterable[str], folder: Path) -> list[str]:
    """Return what promtool says of queries that are none; they have no variables any more."""
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    path = folder / "queries.rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False)
    return [] if done.returncode == 0 else [line for line in (done.stdout + done.stderr).splitlines() if "query_" in line]


def differences(expressions: Iterable[tuple[str, list[tuple[str, float]]]], series: dict[str, str], folder: Path) -> str:
    """Return what promtool finds different from the samples expected after ten minutes of these series; nothing when all is well."""
    tests = [
        {
            "expr": expression,
            "eval_time": "10m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in expected],
        }
        for expression, expected in expressions
    ]
    content = {
        "rule_files": [],
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": tests,
            }
        ],
    }
    path = folder / "queries.test.yml"
    path.write_text(json.dumps(content))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
