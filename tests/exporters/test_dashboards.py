"""The dashboards are what the generator says, ask for what there is, and are what Grafana takes; every check can fail."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventq_opentelemetry import names
from eventq_prometheus.catalogue import CATALOGUE
from eventq_prometheus.dashboards import DASHBOARDS, OPT_IN, files, filled, queries, shared, trace_queries, traceql
from eventq_prometheus.dashboards.model import LayoutError, Panel, Row, Target
from eventq_prometheus.dashboards.query import PROGRAM, UnknownMetric, rate
from eventq_prometheus.promql import unknown_names
from eventq_prometheus.rules.settings import RuleSettings

from ..conftest import skip_for
from .dashboard_lint import EXCLUDED, RULES, Content, all_panels, grid
from .dashboard_promql import Selector, differences, promql_errors, selectors
from .dashboard_schema import SOURCES, CannotInstall, complaints, install, missing_tools, traceql_errors

ROOT = Path(__file__).resolve().parents[2]
CONTENTS: dict[str, Content] = {Path(path).stem: json.loads(text) for path, text in files().items()}
UIDS = list(CONTENTS)
PANELS = [(uid, panel) for uid, content in CONTENTS.items() for panel in all_panels(content) if panel["type"] != "row"]


@pytest.fixture(scope="session")
def promtool() -> None:
    """Prometheus' own reader of PromQL; skips where it is missing."""
    if shutil.which("promtool") is None:
        skip_for("no promtool: queries are checked with it (Debian: apt-get install prometheus)")


# What is committed


def test_committed_files_are_what_the_generator_says() -> None:
    """`python tools/make_grafana.py` writes them; a file that nothing makes has no place there."""
    written = {f"dashboards/{path.name}": path.read_text() for path in (ROOT / "grafana" / "dashboards").iterdir()}
    assert sorted(files()) == sorted(written)
    for path, text in files().items():
        assert text == written[path], f"grafana/{path}: run `python tools/make_grafana.py`"


def test_files_are_the_same_every_time() -> None:
    """In another process, with another seed of its hashes, the text is the same: 2 spaces, a newline at the end."""
    code = "import json; from eventq_prometheus.dashboards import files; print(json.dumps(files()))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=30, check=True)
    assert files() == json.loads(done.stdout)
    for text in files().values():
        assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"


def test_uids_are_stable_and_unique_and_schema_is_one_that_old_versions_load() -> None:
    """Links and bookmarks go by the uid; an id would be that of somebody's Grafana."""
    assert ["eventq-fleet", "eventq-queue", "eventq-workers", "eventq-jobs", "eventq-pipeline"] == UIDS
    assert [content["uid"] for content in CONTENTS.values()] == UIDS
    for content in CONTENTS.values():
        assert "id" not in content and content["schemaVersion"] == 41
        assert (content["refresh"], content["graphTooltip"], content["tags"]) == ("30s", 1, ["eventq"])


def test_readme_says_of_every_dashboard_what_it_answers() -> None:
    """Its table has a row for each, with its title."""
    rows = re.findall(
        r"^\| \[(.+)\]\(dashboards/(.+)\.json\) \| .+ \|$", (ROOT / "grafana" / "README.md").read_text(), re.MULTILINE
    )
    assert [(content["title"].removeprefix("eventq / "), uid) for uid, content in CONTENTS.items()] == rows


# The linter's rules


def good() -> Content:
    """The smallest dashboard that no rule finds anything in."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    panel: Content = {
        "datasource": source,
        "description": "Jobs added per second.",
        "fieldConfig": {"defaults": {"unit": "ops"}, "overrides": []},
        "gridPos": {"h": 8, "w": 24, "x": 0, "y": 0},
        "id": 1,
        "targets": [
            {
                "datasource": source,
                "expr": 'sum by (queue) (rate(eventq_jobs_added_total{job=~"$job"}[$__rate_interval]))',
                "legendFormat": "{{queue}}",
                "refId": "A",
            }
        ],
        "title": "Added",
        "type": "timeseries",
    }
    table: Content = {
        **copy.deepcopy(panel),
        "fieldConfig": {
            "defaults": {"unit": "ops"},
            "overrides": [{"matcher": {"id": "byName", "options": "Rate"}, "properties": [{"id": "unit", "value": "ops"}]}],
        },
        "gridPos": {"h": 8, "w": 24, "x": 0, "y": 8},
        "id": 2,
        "options": {"sortBy": [{"desc": True, "displayName": "Rate"}]},
        "title": "Table",
        "transformations": [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": {"queue": "Queue", "Value": "Rate"}}},
        ],
        "type": "table",
    }
    table["targets"][0]["format"] = "table"
    job = {
        "allValue": ".+",
        "datasource": source,
        "includeAll": True,
        "label": "Job",
        "multi": True,
        "name": "job",
        "query": "label_values(eventq_up, job)",
        "refresh": 2,
        "type": "query",
    }
    data_source = {"label": "Data source", "name": "datasource", "query": "prometheus", "type": "datasource"}
    return {"editable": False, "panels": [panel, table, spans()], "templating": {"list": [data_source, job]}}


def spans() -> Content:
    """A table of spans, which asks Tempo."""
    source = {"type": "tempo", "uid": "${tempo_datasource}"}
    query = '{ span.messaging.system = "eventq" && kind = consumer } | select(name, span.error.type) with (most_recent=true)'
    titles = {"Start time": "Start", "Name": "Span", "error.type": "Error", "Duration": "Duration", "traceIdHidden": "Trace"}
    link = {"title": "Show", "url": "/d/x?var-trace_id=${__data.fields.traceIdHidden}"}
    return {
        "datasource": source,
        "description": "Attempts.",
        "fieldConfig": {
            "defaults": {"unit": "string"},
            "overrides": [{"matcher": {"id": "byName", "options": "Span"}, "properties": [{"id": "links", "value": [link]}]}],
        },
        "gridPos": {"h": 8, "w": 24, "x": 0, "y": 16},
        "id": 3,
        "options": {"sortBy": [{"desc": True, "displayName": "Start"}]},
        "targets": [{"datasource": source, "query": query, "queryType": "traceql", "refId": "A"}],
        "title": "Spans",
        "transformations": [
            {"id": "convertFieldType", "options": {"conversions": [{"destinationType": "number", "targetField": "Duration"}]}},
            {"id": "organize", "options": {"excludeByName": {"kind": True}, "renameByName": titles}},
        ],
        "type": "table",
    }


def _set(*path: str | int, to: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        at: Any = content
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return change


EXPRESSION = ("panels", 0, "targets", 0, "expr")
FAULTS: dict[str, list[Callable[[Content], None]]] = {
    "template-datasource-rule": [_set("templating", "list", to=[]), _set("templating", "list", 0, "name", to="source")],
    "template-job-rule": [_set("templating", "list", 1, "name", to="jobs"), _set("templating", "list", 1, "allValue", to=".*")],
    "template-label-promql-rule": [
        _set("templating", "list", 1, "query", to="labels(eventq_up, job)"),
        _set("templating", "list", 1, "query", to="label_values(eventq_up{, job)"),
    ],
    "template-on-time-change-reload-rule": [_set("templating", "list", 1, "refresh", to=1)],
    "panel-datasource-rule": [
        _set("panels", 0, "datasource", to={"uid": "prometheus"}),
        _set("panels", 0, "targets", 0, "datasource", to=None),
        _set("panels", 2, "datasource", "uid", to="tempo"),
        _set("panels", 2, "targets", 0, "datasource", to={"type": "tempo", "uid": "${datasource}"}),
    ],
    "panel-title-description-rule": [_set("panels", 0, "description", to=""), _set("panels", 0, "title", to="")],
    "panel-units-rule": [
        _set("panels", 0, "fieldConfig", "defaults", to={}),
        _set("panels", 1, "fieldConfig", "overrides", 0, "properties", 0, "value", to="jobs"),
    ],
    "panel-no-targets-rule": [_set("panels", 0, "targets", to=[])],
    "target-promql-rule": [_set(*EXPRESSION, to="sum by (queue) (eventq_workers"), _set(*EXPRESSION, to="")],
    "target-rate-interval-rule": [
        _set(*EXPRESSION, to='sum by (queue) (rate(eventq_jobs_added_total{job=~"$job"}[5m]))'),
        _set(*EXPRESSION, to='sum by (queue) (increase(eventq_jobs_added_total{job=~"$job"}[5m]))'),
    ],
    "target-job-rule": [
        _set(*EXPRESSION, to="sum by (queue) (eventq_workers)"),
        _set(*EXPRESSION, to='sum by (queue) (eventq_workers{job="$job"})'),
        _set("annotations", to={"list": [{"expr": "up == 0", "name": "down"}]}),
    ],
    "target-counter-agg-rule": [_set(*EXPRESSION, to='sum by (queue) (eventq_jobs_added_total{job=~"$job"})')],
    "uneditable-dashboard": [_set("editable", to=True)],
    "grid": [
        _set("panels", 1, "gridPos", "y", to=7),
        _set("panels", 1, "gridPos", "w", to=23),
        _set("panels", 1, "gridPos", "y", to=9),
    ],
    "numbers": [_set("panels", 1, "id", to=1)],
    "legends": [_set("panels", 0, "targets", 0, "legendFormat", to="{{job_name}}")],
    "columns": [
        _set("panels", 1, "transformations", 1, "options", "renameByName", to={"queue": "Queue", "Value #A": "Rate"}),
        _set("panels", 1, "fieldConfig", "overrides", 0, "matcher", "options", to="Ratio"),
        _set("panels", 1, "options", "sortBy", 0, "displayName", to="Ratio"),
    ],
    "target-traceql": [
        _set("panels", 2, "targets", to=spans()["targets"] * 2),
        _set("panels", 2, "targets", 0, "query", to="{ true } with (most_recent=true)"),
        _set("panels", 2, "targets", 0, "query", to=spans()["targets"][0]["query"].removesuffix(" with (most_recent=true)")),
        _set("panels", 2, "type", to="traces"),
    ],
    "span-columns": [
        _set("panels", 2, "targets", 0, "query", to=spans()["targets"][0]["query"].replace("span.error.type", "span.error")),
        _set("panels", 2, "transformations", 1, "options", "excludeByName", "error.type", to=True),
        _set("panels", 2, "transformations", 0, "options", "conversions", 0, "targetField", to="wait"),
        _set("panels", 2, "fieldConfig", "overrides", 0, "matcher", "options", to="Name"),
        _set("panels", 2, "options", "sortBy", 0, "displayName", to="Start time"),
        _set("panels", 2, "fieldConfig", "overrides", 0, "properties", 0, "value", 0, "url", to="?${__data.fields.traceID}"),
        _set("panels", 2, "fieldConfig", "overrides", 0, "properties", 0, "value", 0, "url", to='?${__data.fields["job.id"]}'),
    ],
}


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("rule", RULES)
def test_each_rule_finds_its_fault_and_nothing_in_a_good_dashboard(rule: str) -> None:
    """A rule that cannot fail is none."""
    assert RULES[rule](good()) == []
    for fault in FAULTS[rule]:
        broken = good()
        fault(broken)
        assert RULES[rule](broken), json.dumps(broken)


def test_rules_left_out_have_a_reason() -> None:
    """No rule is both checked and left out."""
    assert not set(EXCLUDED) & set(RULES) and all(EXCLUDED.values())


@pytest.mark.usefixtures("promtool")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("uid", UIDS)
def test_dashboards_keep_the_rules(uid: str, rule: str) -> None:
    """The linter's, and ours: no panel on another, full lines, legends and columns that are there."""
    assert RULES[rule](CONTENTS[uid]) == []


@pytest.mark.parametrize("panels", [[(12, 8), (8, 8)], [(12, 8), (12, 7)], [(16, 8), (16, 8)]])
def test_a_line_that_is_not_full_or_not_even_is_refused(panels: list[tuple[int, int]]) -> None:
    """The generator itself makes no gaps."""
    made = tuple(
        Panel(kind="stat", title="x", description="y", targets=(), width=width, height=height, options={}, field={})
        for width, height in panels
    )
    with pytest.raises(LayoutError, match=r"x \(\d+ by \d\)"):
        shared.dashboard("x", "x", "x", (Row("row", made),)).as_text()


def test_panels_after_a_row_that_is_folded_away_close_up() -> None:
    """It takes the room of its heading."""
    panel = Panel(kind="stat", title="x", description="y", targets=(), width=24, height=8, options={}, field={})
    content = json.loads(shared.dashboard("x", "x", "x", (Row("a", (panel,), collapsed=True), Row("b", (panel,)))).as_text())
    assert [each["gridPos"]["y"] for each in content["panels"]] == [0, 1, 2]
    assert grid(content) == [] and len(content["panels"][0]["panels"]) == 1


# What is asked for


def test_selectors_are_read_from_any_query() -> None:
    """Names in brackets of `by` are labels, strings may hold anything, and numbers are no metrics."""
    query = 'sum by (a) (rate(x_total{job=~"$job", q!="a{b}"}[$__rate_interval])) > bool 5e3 or 0 - time() + bar[5m:1m] offset 5m'
    assert selectors(query) == [
        Selector("x_total", (("job", "=~", "$job"), ("q", "!=", "a{b}")), "$__rate_interval", "rate"),
        Selector("bar", (), "5m:1m", ""),
    ]


def test_queries_name_what_is_in_the_catalogue() -> None:
    """Metrics and labels; besides them what Prometheus and a process say of themselves."""
    program: dict[str, tuple[str, ...]] = dict.fromkeys(PROGRAM, ())
    annotations = [each["expr"] for content in CONTENTS.values() for each in content["annotations"]["list"] if "expr" in each]
    for query in [*(each.query for each in queries()), *annotations]:
        assert unknown_names(query, program) == [], query
    assert unknown_names('eventq_jobs_added_total{job=~"$job", worker="a"} + eventq_jobs', program) == [
        "eventq_jobs_added_total{worker}",
        "eventq_jobs",
    ]
    with pytest.raises(UnknownMetric, match="eventq_jobs_total"):
        rate("eventq_jobs_total")


def test_every_metric_is_on_a_dashboard() -> None:
    """A metric that nobody looks at is missing here, or should not be there."""
    asked = {each.name for query in queries() for each in selectors(query.query)}
    forgotten = [name for name, metric in CATALOGUE.items() if not asked & set(metric.series_names)]
    assert forgotten == []


@pytest.mark.usefixtures("promtool")
def test_filled_queries_are_promql(tmp_path: Path) -> None:
    """Nothing of Grafana is left in them, and Prometheus reads them; one that it cannot read is found."""
    texts = [filled(each.query) for each in queries()]
    assert len(texts) > 100 and [text for text in texts if "$" in text] == []
    assert promql_errors(texts, tmp_path) == []
    assert len(promql_errors([*texts, "sum(", "rate(up)"], tmp_path)) == 2
    assert filled('x{a=~"${queue}|"}[$__rate_interval] + y[$__range]') == 'x{a=~".*|"}[1m] + y[1h]'


def test_single_workers_stand_apart() -> None:
    """Panels of metrics that the exporter tells only when asked to are in a row that says so, and only they."""
    metrics = {name for name, metric in CATALOGUE.items() if "--per-worker" in metric.help}
    assert len(metrics) == 4
    named = {(each.dashboard, each.panel) for each in queries() if {found.name for found in selectors(each.query)} & metrics}
    assert named == OPT_IN == {(each.dashboard, each.panel) for each in queries() if each.is_opt_in}
    rows = [panel for panel in CONTENTS["eventq-workers"]["panels"] if panel["type"] == "row" and panel["collapsed"]]
    assert [{panel["title"] for panel in row["panels"]} for row in rows] == [{title for _, title in OPT_IN}]
    assert "--per-worker" in rows[0]["title"] and all("--per-worker" in panel["description"] for panel in rows[0]["panels"])


@pytest.mark.parametrize("metric", ["eventq_job_wait_seconds", "eventq_job_processing_seconds", "eventq_job_total_seconds"])
def test_durations_ask_for_exemplars(metric: str) -> None:
    """A dot beside the line leads to one job."""
    asked = [
        [target["exemplar"] for target in panel["targets"]]
        for _, panel in PANELS
        if any(f"{metric}_bucket" in target.get("expr", "") for target in panel["targets"])
    ]
    assert asked and all(any(each) for each in asked)


# What the answers are


QUEUES = ("good", "late", "alone", "held")


def _queue_series() -> dict[str, str]:
    """Four queues, with no namespace: one in order, one that is late, one without workers, one that is paused."""
    waiting, oldest = dict(zip(QUEUES, (6, 20, 5, 0), strict=True)), dict(zip(QUEUES, (2, 400, 30, 0), strict=True))
    found: dict[str, str] = {}
    for queue in QUEUES:
        target = f'job="eventq",instance="a",queue="{queue}"'
        found[f'eventq_queue_jobs{{{target},state="waiting"}}'] = f"{waiting[queue]}x40"
        found[f'eventq_queue_jobs{{{target},state="prioritized"}}'] = "0x40"
        found[f'eventq_queue_oldest_job_age_seconds{{{target},state="waiting"}}'] = f"{oldest[queue]}x40"
        found[f"eventq_queue_paused{{{target}}}"] = f"{int(queue == 'held')}x40"
        if queue != "alone":
            found[f"eventq_workers{{{target}}}"] = "2x40"
    # Only one queue has ever run a job: the counters of the others are not there.
    target = 'job="eventq",instance="a",queue="good",job_name="a"'
    found[f"eventq_jobs_finished_total{{{target}}}"] = "0+45x40"
    found[f"eventq_jobs_failed_total{{{target}}}"] = "0+9x40"
    return {name: re.sub(r"^(\d+)x", r"\1+0x", values) for name, values in found.items()}


def _by_queue(*values: float) -> list[tuple[str, float]]:
    return [(f'{{queue="{queue}"}}', value) for queue, value in zip(QUEUES, values, strict=True)]


def _asked(uid: str, title: str) -> list[str]:
    return [each.query for each in queries() if (each.dashboard, each.panel) == (uid, title)]


@pytest.mark.usefixtures("promtool")
def test_the_fleet_knows_which_queue_is_ill(tmp_path: Path) -> None:
    """The status is the worst that is true, and the table has a row for every queue in every column."""
    status = _asked("eventq-fleet", "Status of queues")
    columns = _asked("eventq-fleet", "Queues")
    expected = [
        _by_queue(0, 1, 2, 3),
        _by_queue(2, 400, 30, 0),
        _by_queue(6, 20, 5, 0),
        _by_queue(2, -1, -1, 0),  # six jobs at three per second; never; never; nothing to do
        _by_queue(0.2, 0, 0, 0),
        _by_queue(2, 2, 0, 2),
        _by_queue(0, 0, 0, 0),
        _by_queue(3, 0, 0, 0),
    ]
    asked = list(zip(map(filled, [*status, *columns]), expected, strict=True))
    assert differences(asked, _queue_series(), tmp_path) == ""
    wrong = [(asked[0][0], _by_queue(0, 1, 2, 2))]
    assert "FAILED" in differences(wrong, _queue_series(), tmp_path)


@pytest.mark.usefixtures("promtool")
def test_an_exporter_that_is_down_is_seen_and_other_programs_are_not(tmp_path: Path) -> None:
    """All jobs are every program that Prometheus scrapes; those that never had an exporter's series are left out."""
    series = {
        'up{job="eventq",instance="a"}': "1+0x20 0+0x19",
        'eventq_up{job="eventq",instance="a"}': "1+0x20 stale",
        'up{job="node",instance="b"}': "1+0x40",
        'process_open_fds{job="node",instance="b"}': "7+0x40",
        'process_open_fds{job="eventq",instance="a"}': "9+0x40",
    }
    up, files_open = (_asked("eventq-pipeline", title)[0] for title in ("Exporters up", "Open files"))
    expected = [(filled(up), [("{}", 0.0)]), (filled(files_open), [('process_open_fds{job="eventq",instance="a"}', 9.0)])]
    assert differences(expected, series, tmp_path) == ""


@pytest.mark.usefixtures("promtool")
def test_alerts_of_no_queue_are_shown_whichever_queue_is_chosen(tmp_path: Path) -> None:
    """And neither the watchdog, nor other queues' alerts, nor those that only wait to fire."""
    series = {
        'ALERTS{alertname="EventqRedisUnreachable",alertstate="firing"}': "1+0x40",
        'ALERTS{alertname="EventqJobsStalled",alertstate="firing",queue="mail"}': "1+0x40",
        'ALERTS{alertname="EventqJobsStalled",alertstate="pending",queue="mail"}': "1+0x40",
        'ALERTS{alertname="EventqJobsStalled",alertstate="firing",queue="other"}': "1+0x40",
        'ALERTS{alertname="EventqWatchdog",alertstate="firing"}': "1+0x40",
        'ALERTS{alertname="NodeDown",alertstate="firing"}': "1+0x40",
    }
    asked = _asked("eventq-fleet", "Firing alerts")[0]
    expected = [(filled(asked.replace("$queue", "mail")), [("{}", 2.0)]), (filled(asked), [("{}", 3.0)])]
    assert differences(expected, series, tmp_path) == ""
    assert differences([(filled(asked), [("{}", 0.0)])], {"other": "1+0x40"}, tmp_path) == ""


# How one gets around


def test_links_lead_to_dashboards_and_keep_time_and_variables() -> None:
    """The bar leads to all of them; a queue's name in the fleet to that queue; job names, jobs and spans to the explorer."""
    for content in CONTENTS.values():
        (bar,) = content["links"]
        assert (bar["tags"], bar["keepTime"], bar["includeVars"]) == (["eventq"], True, True)
    properties = [
        (uid, override["matcher"]["options"], each["value"])
        for uid, panel in PANELS
        for override in panel["fieldConfig"]["overrides"]
        for each in override["properties"]
        if each["id"] == "links"
    ]
    links = [(uid, column, link["url"].partition("?")) for uid, column, value in properties for link in value]
    assert [(uid, column, path) for uid, column, (path, _, _) in links] == [
        ("eventq-fleet", "Queue", "/d/eventq-queue"),
        ("eventq-queue", "Job name", "/d/eventq-jobs"),
        ("eventq-jobs", "Span", "/d/eventq-jobs"),
        ("eventq-jobs", "Job", "/d/eventq-jobs"),
        ("eventq-jobs", "Job", "/d/eventq-jobs"),
    ]
    for uid, _, (path, _, parameters) in links:
        given = [re.sub(r"^(?:var-|\$\{)(\w+).*$", r"\1", each) for each in parameters.split("&")]
        here, there = (
            {each["name"] for each in CONTENTS[name]["templating"]["list"]} for name in (uid, path.removeprefix("/d/"))
        )
        # Nothing twice: of two values Grafana would take the first. What both have is kept, or said anew.
        assert len(set(given)) == len(given) and here & there <= set(given) <= there | {"__url_time_range"}


def test_firing_alerts_are_marked_on_every_dashboard() -> None:
    """For as long as they fire, whichever data source is chosen."""
    for content in CONTENTS.values():
        marks = [each for each in content["annotations"]["list"] if 'alertname=~"Eventq.*"' in each.get("expr", "")]
        assert [(each["enable"], each["target"]["expr"] == each["expr"]) for each in marks] == [(True, True)]
        assert 'alertstate="firing"' in marks[0]["expr"] and marks[0]["datasource"]["uid"] == "${datasource}"


def test_all_namespaces_and_queues_are_chosen_in_a_way_that_lets_absent_labels_pass() -> None:
    """Without Kubernetes there is no namespace, and `.+` would not match that."""
    for content in CONTENTS.values():
        found = {each["name"]: each for each in content["templating"]["list"]}
        assert list(found)[:4] == ["datasource", "job", "namespace", "queue"]
        assert (found["namespace"]["allValue"], found["queue"]["allValue"]) == (".*", ".*")
        assert [found[name]["current"]["value"] for name in ("job", "namespace", "queue")] == [["$__all"]] * 3


def test_colours_change_where_the_alerts_are() -> None:
    """The limits of panels are those of the rules as they come."""
    rules = RuleSettings()
    assert (shared.ERROR_BUDGET, shared.FAST_BURN) == pytest.approx(
        (1 - rules.objective, (1 - rules.objective) * rules.page_burn_6h)
    )
    assert (shared.LATE_SECONDS, shared.VERY_LATE_SECONDS) == (rules.latency_warning, rules.latency_critical)
    assert (shared.DRAIN_SECONDS, shared.SATURATED, shared.OVERDUE_SECONDS) == (
        rules.drain_warning,
        rules.saturation,
        rules.overdue,
    )
    assert (shared.LAG_SECONDS, shared.LAG_SHARE) == (rules.lag_minimum, rules.lag_share)


# Traces


def test_trace_queries_name_what_spans_have() -> None:
    """Attributes that are not in the table cannot be asked for; what is there is on the dashboard, and of the tracer's words."""
    asked = " ".join(each.query for each in trace_queries())
    assert {each for each in traceql.ATTRIBUTES if traceql.span(each) in asked} == traceql.ATTRIBUTES
    assert set(re.findall(r'span\."?([\w.]+)', asked)) == traceql.ATTRIBUTES
    written = {each for each in vars(names).values() if isinstance(each, str)}
    assert traceql.ATTRIBUTES <= written and f'{traceql.span(names.MESSAGING_SYSTEM)} = "{names.SYSTEM}"' in asked
    with pytest.raises(traceql.UnknownAttribute, match="eventq.job.result"):
        traceql.span("eventq.job.result")


def test_what_is_chosen_at_the_top_is_asked_for() -> None:
    """Each variable of the job explorer is in one of its queries, and they have no others."""
    queries_of_spans = [target["query"] for uid, panel in PANELS if uid == "eventq-jobs" for target in panel["targets"]]
    own = {each["name"] for each in CONTENTS["eventq-jobs"]["templating"]["list"][4:]} - {"tempo_datasource"}
    assert set(re.findall(r"\$(\w+)", " ".join(queries_of_spans))) == own | {"queue"}
    assert [text for text in map(traceql.filled, queries_of_spans) if "$" in text] == []


def test_every_choice_of_a_duration_is_one_of_traceql() -> None:
    """A number and a unit that Tempo knows; the chosen one is among them."""
    (variable,) = [each for each in CONTENTS["eventq-jobs"]["templating"]["list"] if each["type"] == "custom"]
    values = [each["value"] for each in variable["options"]]
    assert ",".join(values) == variable["query"] and [variable["current"]["value"]] == [
        each["value"] for each in variable["options"] if each["selected"]
    ]
    assert [value for value in values if not re.fullmatch(r"\d+(?:ms|s|m|h)", value)] == []


@pytest.mark.slow
def test_trace_queries_are_traceql(schema: Path) -> None:
    """By the grammar of Grafana's editor: those of the panels, with each duration; and it finds what is none."""
    asked = [each.query for each in trace_queries()]
    assert len(asked) == 7
    assert traceql_errors(schema, map(traceql.filled, asked)) == {}
    slow = next(each for each in asked if "$min_duration" in each)
    (variable,) = [each for each in CONTENTS["eventq-jobs"]["templating"]["list"] if each["type"] == "custom"]
    durations = [traceql.filled(slow.replace("$min_duration", each["value"])) for each in variable["options"]]
    assert traceql_errors(schema, durations) == {}
    broken = [
        "",
        '{ span.messaging.system = "eventq" ',
        '{ span.messaging.system == "eventq" }',
        "{ kind = konsumer }",
        "{ duration >= 5 minutes }",
        "{ status = error } | rate( by (span.error.type)",
        "{ status = error } | ratio() by (span.error.type)",
        "{ status = error } | select()",
        "{ span.eventq.job.attempt > 1 }",
    ]
    assert set(traceql_errors(schema, [*broken, *map(traceql.filled, asked)])) == set(broken)


# Grafana's own types


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Grafana's types and a compiler; skips where Node is missing or its packages cannot be had."""
    reason = missing_tools()
    if reason is not None:
        skip_for(reason)
    folder = tmp_path_factory.mktemp("grafana_schema")
    try:
        install(folder)
    except CannotInstall as error:
        skip_for(str(error))
    return folder


def test_lock_file_names_no_registry() -> None:
    """Whoever installs takes the packages from where they take packages; the hashes are the same everywhere."""
    locked = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
    assert not any("resolved" in each for each in locked.values()) and all(
        "integrity" in each for name, each in locked.items() if name
    )


@pytest.mark.slow
def test_dashboards_are_what_grafana_10_to_13_say_a_dashboard_is(schema: Path) -> None:
    """With the options, field settings, queries and overrides of each kind of panel, to the last key."""
    assert complaints(schema, CONTENTS) == []


def _panel(content: Content, kind: str) -> Content:
    return next(panel for panel in all_panels(content) if panel["type"] == kind)


@pytest.mark.slow
def test_grafana_s_types_find_what_is_wrong(schema: Path) -> None:
    """A wrong type, a word that is none, a key too many or too few, at each level; and a line for each, that says where."""
    broken = copy.deepcopy(CONTENTS["eventq-fleet"])
    broken["refesh"] = "30s"
    broken["annotations"]["list"][1]["tagKeys"] = ["queue"]
    _panel(broken, "row")["collapsed"] = "false"
    _panel(broken, "stat")["options"]["colorMode"] = "vaule"
    _panel(broken, "state-timeline")["fieldConfig"]["defaults"]["mappings"][0]["type"] = "values"
    _panel(broken, "table")["fieldConfig"]["overrides"][1]["properties"][1]["value"] = {"type": "sparkle"}
    _panel(broken, "timeseries")["targets"][0]["exemplars"] = True
    del _panel(broken, "bargauge")["options"]["displayMode"]
    traced = copy.deepcopy(CONTENTS["eventq-jobs"])
    _panel(traced, "table")["targets"][0]["tableType"] = "span"
    _panel(traced, "traces")["options"]["height"] = 14
    found = complaints(schema, {"eventq-fleet": broken, "eventq-jobs": traced})
    places = {line.partition(": error ")[0] for line in found if ": error " in line}
    named = [_panel(broken, kind)["title"] for kind in ("row", "stat", "state-timeline", "table", "timeseries", "bargauge")]
    assert {"eventq-fleet", *(f"eventq-fleet, {title}" for title in named)} <= places
    assert {f"eventq-jobs, {_panel(traced, kind)['title']}" for kind in ("table", "traces")} <= places
    # An older Grafana has to find nothing wrong with what it knows, and there is nothing it knows that is wrong in these.
    assert "eventq-fleet, as InGrafana10" in places


# The command


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Call the command as `eventq dashboards` does."""
    code = "from eventq_prometheus.dashboards.command import app; app(prog_name='eventq dashboards')"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_command_writes_the_files_and_says_which(tmp_path: Path) -> None:
    """Into a folder that it makes; once more is no error."""
    for _ in range(2):
        done = run("there/grafana", folder=tmp_path)
        assert (0, "") == (done.returncode, done.stderr)
        assert sorted(done.stdout.split()) == sorted(f"there/grafana/{uid}.json" for uid in UIDS)
    written = {f"dashboards/{path.name}": path.read_text() for path in (tmp_path / "there" / "grafana").iterdir()}
    assert files() == written


def test_command_overwrites_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    """A file that differs is named, and none is written."""
    (tmp_path / "eventq-queue.json").write_text("mine")
    done = run(".", folder=tmp_path)
    assert 2 == done.returncode and "eventq-queue.json" in done.stderr and 1 == len(done.stderr.splitlines())
    assert ["eventq-queue.json"] == [path.name for path in tmp_path.iterdir()]
    assert 0 == run(".", "--force", folder=tmp_path).returncode
    assert files()["dashboards/eventq-queue.json"] == (tmp_path / "eventq-queue.json").read_text()


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_command_says_in_a_line_what_is_wrong(place: str, tmp_path: Path) -> None:
    """A file in the way is no traceback."""
    (tmp_path / "taken").write_text("")
    done = run(place, folder=tmp_path)
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines())) and "taken" in done.stderr


def test_targets_say_what_grafana_stores() -> None:
    """An instant query is no range query."""
    stored: Any = Target("up", instant=True).as_json("B")
    assert (stored["instant"], stored["range"], stored["refId"], stored["expr"]) == (True, False, "B", "up")
    first = DASHBOARDS[0].panels[0].targets[0]
    assert isinstance(first, Target) and first.instant
