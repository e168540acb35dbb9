"""A lint of PromQL: which metrics and labels of a query are unknown, and which windows it looks over.

It reads tokens, not the whole grammar: promtool says whether a query is valid, this says whether it is about anything that
exists. Grafana's variables (`$queue`, `${queue}`) may stand wherever a value may.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from eventq_prometheus.catalogue import CATALOGUE

__all__ = ["TARGET_LABELS", "duration_text", "ranges", "seconds_of", "unknown_names"]

#: Labels that Prometheus gives to everything it scrapes; `namespace` only in Kubernetes.
TARGET_LABELS: Final = ("job", "instance", "namespace")

#: Metrics that Prometheus makes itself, besides `scrape_*`.
_OWN: Final = {"up": (), "ALERTS": ("alertname", "alertstate", "severity"), "ALERTS_FOR_STATE": ("alertname", "severity")}
_EVERY_LABEL: Final = tuple(sorted({label for metric in CATALOGUE.values() for label in metric.series_labels}))
_SERIES: Final = {name: metric.series_labels for metric in CATALOGUE.values() for name in metric.series_names}

_TOKEN: Final = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    |(?P<range>\[[^\]]*\])
    |(?P<variable>\$\{[^}]+\}|\$\w+)
    |(?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    |(?P<number>\.?\d[\w.]*)
    |(?P<symbol>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},@])""",
    re.VERBOSE,
)
_GROUPING: Final = {"by", "without", "on", "ignoring", "group_left", "group_right"}
_WORDS: Final = {"and", "or", "unless", "bool", "offset", "inf", "nan", "atan2", "start", "end"}
_AGGREGATIONS: Final = {
    "sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk", "topk", "quantile",
}  # fmt: skip
#: Functions whose first text is the name of a label they make.
_MAKERS: Final = {"label_replace", "label_join", "count_values"}

_UNITS: Final = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_DURATION: Final = re.compile(r"(?:\d+(?:ms|[smhdw]))+")


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class _Selector:
    """A metric and the labels it is selected by. `place`: where in the query."""

    metric: str
    labels: tuple[str, ...]
    place: int


@dataclass(frozen=True, slots=True)
class _Grouping:
    """A `by (…)` or one of its kind; its labels are those of what stands from token `start` to token `end`."""

    labels: tuple[str, ...]
    start: int
    end: int


@dataclass(slots=True)
class _Parts:
    selectors: list[_Selector] = field(default_factory=list[_Selector])
    groupings: list[_Grouping] = field(default_factory=list[_Grouping])
    made: set[str] = field(default_factory=set[str])


def unknown_names(
    query: str, extra_metrics: Mapping[str, Collection[str]] | None = None, extra_labels: Collection[str] = ()
) -> list[str]:
    """Return the metrics and labels of a query that exist nowhere, a label of a metric as `metric{label}`.

    Known are the catalogue's series with their labels, what Prometheus makes itself, and the labels of targets. extra_metrics:
    more metrics (recording rules, say), each with its labels. extra_labels: labels that every series has besides. Raises
    ValueError for text that is no PromQL.
    """
    labels_of = _labels_of(extra_metrics or {}, {*TARGET_LABELS, *extra_labels})
    parts = _read(query)
    found: list[str] = []
    for selector in parts.selectors:
        allowed = labels_of(selector.metric)
        if allowed is None:
            found.append(re.sub(r"^~(.*)", r'__name__=~"\1"', selector.metric))
        else:
            found += [f"{selector.metric}{{{label}}}" for label in selector.labels if label not in allowed | {"__name__"}]
    for grouping in parts.groupings:
        grouped = [each.metric for each in parts.selectors if grouping.start <= each.place <= grouping.end]
        allowed = {*TARGET_LABELS, *extra_labels, *parts.made}.union(*(labels_of(metric) or () for metric in grouped))
        found += [label for label in grouping.labels if label not in allowed]
    return list(dict.fromkeys(found))


def ranges(query: str) -> list[str]:
    """Return what stands in the query's square brackets: `5m`, `1h:30s`, `$__rate_interval`. Raises ValueError."""
    return [token.text[1:-1] for token in _tokens(query) if token.kind == "range"]


def seconds_of(text: str) -> float:
    """Return a duration of PromQL (`1h30m`) in seconds. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration such as 30s, 5m or 1h30m")
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhdw])", text)) / 1000


def duration_text(seconds: float) -> str:
    """Return seconds as PromQL and rule files write durations: `1h30m`, to the millisecond."""
    left, text = round(seconds * 1000), ""
    for unit, size in _UNITS.items():
        if unit != "w" and left >= size:
            text += f"{left // size}{unit}"
            left %= size
    return text or "0s"


def _labels_of(extra: Mapping[str, Collection[str]], always: set[str]) -> Callable[[str], set[str] | None]:
    """Return a function from a metric to the labels it may have, None for one that nobody knows."""
    known = {**_SERIES, **_OWN, **extra}

    def look_up(metric: str) -> set[str] | None:
        if metric.startswith("scrape_"):
            return always
        if metric.startswith("ALERTS"):
            return always | {*known.get(metric, ()), *_EVERY_LABEL}
        if metric.startswith("~"):
            matching = [labels for name, labels in known.items() if re.fullmatch(metric[1:], name)]
            return always.union(*matching) if matching else None
        return always | set(known[metric]) if metric in known else None

    return look_up


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(query):
        match = _TOKEN.match(query, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f"{query!r}: what is {query[at : at + 10]!r}?")
        if match.lastgroup != "blank":
            found.append(_Token(match.lastgroup, match[0]))
        at = match.end()
    return found


def _read(query: str) -> _Parts:
    tokens = _tokens(query)
    pairs = _pairs(tokens, query)
    parts = _Parts()
    at = 0
    while at < len(tokens):
        following = tokens[at + 1].text if at + 1 < len(tokens) else ""
        word = tokens[at].text.lower()
        if tokens[at].text == "{":
            parts.selectors.append(_selector("", tokens, at, pairs[at]))
            at = pairs[at]
        elif tokens[at].kind != "name" or word in _WORDS:
            pass
        elif word in _GROUPING:
            if following == "(":
                parts.groupings.append(_grouping(tokens, at, pairs))
                at = pairs[at + 1]
        elif word in _AGGREGATIONS or following == "(":
            parts.made.update(_made_label(word, tokens[at + 1 :]))
        else:
            start = at + 1 if following == "{" else at
            parts.selectors.append(_selector(tokens[at].text, tokens, start, pairs.get(start, start)))
            at = pairs.get(start, start)
        at += 1
    return parts


def _pairs(tokens: list[_Token], query: str) -> dict[int, int]:
    """Return where each bracket has its partner, both ways."""
    found: dict[int, int] = {}
    opened: list[int] = []
    for at, token in enumerate(tokens):
        if token.text in ("(", "{"):
            opened.append(at)
        elif token.text in (")", "}"):
            if not opened or tokens[opened[-1]].text + token.text not in ("()", "{}"):
                raise ValueError(f"{query!r}: a {token.text!r} that closes nothing")
            found[at] = opened.pop()
            found[found[at]] = at
    if opened:
        raise ValueError(f"{query!r}: a {tokens[opened[-1]].text!r} that nothing closes")
    return found


def _selector(metric: str, tokens: list[_Token], start: int, end: int) -> _Selector:
    """Read `{a="b", …}`; a metric named by `__name__` is that one, or `~` and the pattern."""
    labels: list[str] = []
    for at in range(start + 1, end - 1):
        if tokens[at].kind == "name" and tokens[at + 1].text in ("=", "!=", "=~", "!~"):
            labels.append(tokens[at].text)
            if tokens[at].text == "__name__" and tokens[at + 1].text in ("=", "=~"):
                metric = ("~" if tokens[at + 1].text == "=~" else "") + tokens[at + 2].text[1:-1]
    return _Selector(metric or "~.*", tuple(labels), start)


def _grouping(tokens: list[_Token], at: int, pairs: Mapping[int, int]) -> _Grouping:
    """Read `by (a, b)`: of an aggregation it goes with the brackets after it or before it, else with the whole query."""
    end = pairs[at + 1]
    labels = tuple(token.text for token in tokens[at + 2 : end] if token.kind == "name")
    if tokens[at].text.lower() in ("by", "without"):
        if end + 1 < len(tokens) and tokens[end + 1].text == "(":
            return _Grouping(labels, end + 1, pairs[end + 1])
        if tokens[at - 1].text == ")":
            return _Grouping(labels, pairs[at - 1], at - 1)
    return _Grouping(labels, 0, len(tokens))


def _made_label(function: str, tokens: Iterable[_Token]) -> Iterator[str]:
    """Yield the label that a function makes: the first text among its own arguments."""
    depth = 0
    for token in tokens if function in _MAKERS else ():
        depth += (token.text in ("(", "{")) - (token.text in (")", "}"))
        if token.kind == "string" and depth == 1:
            yield token.text[1:-1]
            return
