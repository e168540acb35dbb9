"""The rules of grafana/dashboard-linter, and some of our own, each a function that returns what it finds in a dashboard.

They are stricter than there: they look at every kind of panel, and at panels of rows that are folded away.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from eventq_prometheus.dashboards import filled

from .dashboard_promql import promql_errors, selectors

Content = dict[str, Any]
Rule = Callable[[Content], list[str]]

#: What is not checked, and why.
EXCLUDED: Final = {
    "template-instance-rule": "metrics are aggregated over exporters: only one of them reads, and which one is of no interest",
    "target-instance-rule": "the same",
    "target-logql-rule": "there are no logs",
    "target-logql-auto-rule": "there are no logs",
}
#: Series that have no job, as alert rules aggregate it away.
WITHOUT_JOB: Final = frozenset({"ALERTS"})
#: Those of Grafana's units that are of use here.
UNITS: Final = frozenset("short none percentunit s ns ops bytes bool_yes_no string".split())
#: A trace is drawn by Grafana as it is: there is nothing to give a unit to.
WITHOUT_UNIT: Final = frozenset({"traces"})
_SOURCES: Final = ("$datasource", "${datasource}")
_TRACE_SOURCE: Final = "${tempo_datasource}"
#: What every search of spans begins with: Tempo holds other programs' spans too.
_OURS: Final = '{ span.messaging.system = "eventq" && '
_WINDOWS: Final = {"rate": ("$__rate_interval",), "irate": ("$__rate_interval",), "increase": ("$__rate_interval", "$__range")}


def all_panels(dashboard: Content) -> list[Content]:
    """Return every panel and row, those that are folded away too."""
    return [each for panel in dashboard.get("panels", []) for each in (panel, *panel.get("panels", []))]


def _shown(dashboard: Content) -> Iterator[Content]:
    yield from (panel for panel in all_panels(dashboard) if panel["type"] != "row")


def _expressions(dashboard: Content) -> Iterator[tuple[str, str]]:
    """Yield where, and what: the queries of panels and of annotations."""
    for panel in _shown(dashboard):
        yield from ((panel["title"], target["expr"]) for target in panel.get("targets", []) if not _asks_tempo(target))
    for each in dashboard.get("annotations", {}).get("list", []):
        if "expr" in each:
            yield f"annotation {each['name']}", each["expr"]


def _asks_tempo(target: Content) -> bool:
    """Whether it is TraceQL, which the rules about PromQL have nothing to say of; `target-traceql` looks at that."""
    return bool((target.get("datasource") or {}).get("type") == "tempo")


def _variables(dashboard: Content, kind: str) -> list[Content]:
    return [each for each in dashboard.get("templating", {}).get("list", []) if each["type"] == kind]


def template_datasource(dashboard: Content) -> list[str]:
    """There is a variable for the data source, and it is named so."""
    found = _variables(dashboard, "datasource")
    if not found:
        return ["no variable for the data source"]
    # Where there are several, the linter has each of them named by its kind. Ours keeps its name for Prometheus all the same:
    # links between dashboards carry variables by their names.
    right = {
        "datasource": "Data source",
        "prometheus_datasource": "Prometheus data source",
        "tempo_datasource": "Tempo data source",
    }
    return [f"the data source is named {each['name']}" for each in found if right.get(each["name"]) != each.get("label")]


def template_job(dashboard: Content) -> list[str]:
    """There is a variable for the job, of which several and all may be chosen."""
    found = [each for each in _variables(dashboard, "query") if each["name"] == "job"]
    if not found:
        return ["no variable for the job"]
    right = {"label": "Job", "multi": True, "includeAll": True, "allValue": ".+"}
    wrong = [f"the variable job has {key} {found[0].get(key)!r}" for key, value in right.items() if found[0].get(key) != value]
    return wrong + ([] if found[0]["datasource"]["uid"] in _SOURCES else ["the variable job has a data source of its own"])


def template_label_promql(dashboard: Content) -> list[str]:
    """Variables ask for the values of a label, of a series that can be asked for."""
    findings: list[str] = []
    for each in _variables(dashboard, "query"):
        asked = re.fullmatch(r"label_values\((?:(.+), )?([a-z_]+)\)", each["query"])
        if asked is None:
            findings.append(f"the variable {each['name']} asks {each['query']}")
        elif asked[1] and _errors([asked[1]]):
            findings.append(f"the variable {each['name']} asks for {asked[1]}, which is no PromQL")
    return findings


def template_on_time_change_reload(dashboard: Content) -> list[str]:
    """Variables are asked for anew when the time shown is changed."""
    return [f"the variable {each['name']} is not refreshed" for each in _variables(dashboard, "query") if each["refresh"] != 2]


def panel_datasource(dashboard: Content) -> list[str]:
    """Panels and their queries use the data source of the variable, Tempo that of its own."""
    return [
        f"{panel['title']}: data source {each.get('datasource')}"
        for panel in _shown(dashboard)
        for each in (panel, *panel.get("targets", []))
        if (each.get("datasource") or {}).get("uid") not in ((_TRACE_SOURCE,) if _asks_tempo(each) else _SOURCES)
    ]


def panel_title_description(dashboard: Content) -> list[str]:
    """Panels say what they are, and what it means."""
    return [
        f"panel {each['id']} {each.get('title')}"
        for each in _shown(dashboard)
        if not (each.get("title") and each.get("description"))
    ]


def panel_units(dashboard: Content) -> list[str]:
    """Panels, and columns of their own, have a unit."""
    findings: list[str] = []
    for panel in _shown(dashboard):
        config = panel.get("fieldConfig", {})
        properties = [each for override in config.get("overrides", []) for each in override["properties"]]
        units = [config.get("defaults", {}).get("unit"), *(each["value"] for each in properties if each["id"] == "unit")]
        findings += [
            f"{panel['title']}: unit {unit}" for unit in units if unit not in UNITS and panel["type"] not in WITHOUT_UNIT
        ]
    return findings


def panel_no_targets(dashboard: Content) -> list[str]:
    """Panels ask for something."""
    return [f"{panel['title']}: no query" for panel in _shown(dashboard) if not panel.get("targets")]


def target_promql(dashboard: Content) -> list[str]:
    """Queries are PromQL."""
    return _errors([expression for _, expression in _expressions(dashboard)])


def _errors(expressions: list[str]) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return promql_errors([filled(expression) for expression in expressions], Path(folder))


def target_rate_interval(dashboard: Content) -> list[str]:
    """A rate is of `$__rate_interval`; growth is of it or of the time shown."""
    return [
        f"{where}: {each.function} of {each.name} over {each.window}"
        for where, expression in _expressions(dashboard)
        for each in selectors(expression)
        if each.function in _WINDOWS and each.window not in _WINDOWS[each.function]
    ]


def target_job(dashboard: Content) -> list[str]:
    """Every selector has the job of the variable."""
    return [
        f"{where}: {each.name}"
        for where, expression in _expressions(dashboard)
        for each in selectors(expression)
        if each.name not in WITHOUT_JOB and ("job", "=~", "$job") not in each.matchers
    ]


def target_counter_agg(dashboard: Content) -> list[str]:
    """A counter, and a histogram's series, is only looked at by how fast it grows."""
    return [
        f"{where}: {each.name}"
        for where, expression in _expressions(dashboard)
        for each in selectors(expression)
        if re.search(r"_(total|bucket|sum|count)$", each.name) and each.function not in _WINDOWS
    ]


def uneditable_dashboard(dashboard: Content) -> list[str]:
    """Nobody edits what the next import would undo."""
    return [] if dashboard.get("editable") is False else ["it is editable"]


def grid(dashboard: Content) -> list[str]:
    """No panel lies on another, and no line has a gap."""
    findings: list[str] = []
    folded = [panel["panels"] for panel in dashboard["panels"] if panel.get("panels")]
    for panels in (dashboard["panels"], *folded):
        taken: dict[tuple[int, int], str] = {}
        for panel in panels:
            place = panel["gridPos"]
            for y in range(place["y"], place["y"] + place["h"]):
                for x in range(place["x"], place["x"] + place["w"]):
                    if (x, y) in taken:
                        findings.append(f"{panel['title']} lies on {taken[x, y]}")
                    taken[x, y] = panel["title"]
        lines = {y for _, y in taken}
        findings += [f"a gap in line {y}" for y in sorted(lines) if {x for x, at in taken if at == y} != set(range(24))]
        findings += [f"nothing in line {y}" for y in range(min(lines), max(lines)) if y not in lines]
    return sorted(set(findings))


def numbers(dashboard: Content) -> list[str]:
    """Every panel has a number of its own."""
    seen = [panel["id"] for panel in all_panels(dashboard)]
    return [f"the number {each} twice" for each in sorted(set(seen)) if seen.count(each) > 1]


def legends(dashboard: Content) -> list[str]:
    """A legend names labels that the query keeps."""
    return [
        f"{panel['title']}: the legend names {label}"
        for panel in _shown(dashboard)
        for target in panel["targets"]
        if not _asks_tempo(target)
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])
        if not re.search(rf"\b(?:by|on) \([^)]*\b{label}\b", target["expr"])
    ]


def columns(dashboard: Content) -> list[str]:
    """What a table renames is there, and what it sets is set for a column of it."""
    findings: list[str] = []
    for panel in _shown(dashboard):
        if panel["type"] != "table" or _asks_tempo(panel):
            continue
        steps = {each["id"]: each["options"] for each in panel["transformations"]}
        renamed, left_out = steps["organize"]["renameByName"], steps["organize"]["excludeByName"]
        plain = [target["refId"] for target in panel["targets"] if target["format"] == "table"]
        values = {f"Value #{ref}" for ref in plain} if len(plain) > 1 else {"Value"}
        values |= {f"Trend #{ref}" for ref in steps.get("timeSeriesTable", {})}
        named = {name for name in (*renamed, *left_out) if name.startswith(("Value", "Trend"))}
        findings += [f"{panel['title']}: column {name}" for name in sorted(values ^ named)]
        set_up = {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        findings += [f"{panel['title']}: no column {name}" for name in sorted(set_up - set(renamed.values()))]
        findings += [
            f"{panel['title']}: sorted by {by['displayName']}"
            for by in panel["options"]["sortBy"]
            if by["displayName"] not in renamed.values()
        ]
    return findings


def target_traceql(dashboard: Content) -> list[str]:
    """A panel asks Tempo for one thing, as Grafana would ask the first one only: the trace that is chosen, or eventq's spans."""
    findings: list[str] = []
    for panel in _shown(dashboard):
        queries = [target["query"] for target in panel.get("targets", []) if _asks_tempo(target)]
        findings += [f"{panel['title']}: {len(queries)} queries"] if len(queries) > 1 else []
        right = "$trace_id" if panel["type"] == "traces" else _OURS
        findings += [f"{panel['title']}: {query}" for query in queries if not query.startswith(right)]
        findings += [
            f"{panel['title']}: not the newest spans: {query}"
            for query in queries
            if panel["type"] == "table" and not query.endswith(" with (most_recent=true)")
        ]
    return findings


#: What Grafana makes of spans by itself.
_OF_SPANS: Final = frozenset({"Start time", "Duration", "traceIdHidden"})


def span_columns(dashboard: Content) -> list[str]:
    """What a table of spans selects is shown, what it shows is selected, and what is set or linked to is there."""
    findings: list[str] = []
    for panel in _shown(dashboard):
        if panel["type"] != "table" or not _asks_tempo(panel):
            continue
        query = panel["targets"][0]["query"]
        selected = {re.sub(r'^(?:span|resource)\.|"', "", each) for each in _selected(query)}
        steps = {each["id"]: each["options"] for each in panel["transformations"]}
        renamed, left_out = steps["organize"]["renameByName"], steps["organize"]["excludeByName"]
        converted = {each["targetField"] for each in steps["convertFieldType"]["conversions"]}
        sources = {"Name" if each == "name" else each for each in selected} | _OF_SPANS
        properties = [each for override in panel["fieldConfig"]["overrides"] for each in override["properties"]]
        urls = [link["url"] for each in properties if each["id"] == "links" for link in each["value"]]
        used = {found for url in urls for found in re.findall(r'__data\.fields(?:\.|\[")([\w.]+)', url)}
        findings += [f"{panel['title']}: column {name}" for name in sorted(sources ^ set(renamed))]
        findings += [f"{panel['title']}: no column {name}" for name in sorted((converted | used) - sources)]
        findings += [f"{panel['title']}: left out {name}" for name in sorted(sources & set(left_out))]
        titles = {by["displayName"] for by in panel["options"]["sortBy"]}
        titles |= {override["matcher"]["options"] for override in panel["fieldConfig"]["overrides"]}
        findings += [f"{panel['title']}: no column {name}" for name in sorted(titles - set(renamed.values()))]
    return findings


def _selected(query: str) -> list[str]:
    found = re.search(r"\| select\(([^)]*)\)", query)
    return found[1].split(", ") if found else []


RULES: Final[dict[str, Rule]] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": template_job,
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": target_job,
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable_dashboard,
    "grid": grid,
    "numbers": numbers,
    "legends": legends,
    "columns": columns,
    "target-traceql": target_traceql,
    "span-columns": span_columns,
}
