"""The alert rules: committed as they are generated, valid, about what exists, each fired by its own cause only, each explained."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml

from eventq import JobState
from eventq.cli.app import app
from eventq_prometheus.promql import duration_text, ranges, seconds_of, unknown_names
from eventq_prometheus.rules import (
    RuleSettings,
    files,
    kubernetes_rules,
    parse_setting,
    prometheus_rules,
    recorded_metrics,
    rule_groups,
)

from ..conftest import skip_for
from .rules_mutants import ALERTS, RULES, TESTS, Mutant, alerts, mutants, read, survives

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
#: A minute for each hour.
SCALED = RuleSettings(time_scale=1 / 60, scrape_interval=1)
#: Alerts whose tests take no time; the others' mutants are for `make test-full`.
QUICK = ("EventqSchedulerOverdue", "EventqRedisUnreachable", "EventqQueueHasNoWorkers", "EventqScrapeIncomplete")
PARTS = ("Meaning.", "Why it wakes you.", "Look first.", "Do.", "Tune.")
MUTANTS = [pytest.param(mutant, id=str(mutant), marks=() if mutant.name in QUICK else pytest.mark.full) for mutant in mutants()]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own checker; skips where it is missing."""
    path = shutil.which("promtool")
    if path is None:
        skip_for("no promtool in PATH")
    return path or ""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/make_grafana.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("make_grafana", ROOT / "tools" / "make_grafana.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_rules(promtool: str, text: str, folder: Path) -> str:
    """Return what promtool says against a rule file."""
    path = folder / "some.rules.yml"
    path.write_text(text)
    done = subprocess.run([promtool, "check", "rules", path], capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def sections() -> dict[str, str]:
    """Return the runbook's sections about alerts by their headings."""
    parts = re.split(r"^## +(.*)$", RUNBOOK.read_text(), flags=re.MULTILINE)
    return {heading: text for heading, text in zip(parts[1::2], parts[2::2], strict=True) if heading.startswith("Eventq")}


# What is committed


def test_files_are_what_the_code_says(tool: ModuleType) -> None:
    """`python tools/make_grafana.py` writes them; a file that nothing makes has no place there."""
    made = tool.files()
    assert set(files()) <= set(made)
    for name, text in made.items():
        assert text == (tool.FOLDER / name).read_text(), f"grafana/{name}: run `python tools/make_grafana.py`"
    written = {
        f"{each.parent.name}/{each.name}" for folder in ("alerts", "kubernetes") for each in (tool.FOLDER / folder).iterdir()
    }
    assert set(files()) | {"alerts/eventq.tests.yml"} == written


def test_tool_says_what_differs_and_mends_it(
    tool: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` writes nothing and exits 1; without it what differs is written, and nothing else."""
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["make_grafana.py"])
    assert 0 == tool.main()
    stale = tmp_path / "alerts" / RULES.name
    stale.write_text("old")
    monkeypatch.setattr(sys, "argv", ["make_grafana.py", "--check"])
    capsys.readouterr()
    assert (1, "grafana/alerts/eventq.rules.yml is not what the code says\n") == (tool.main(), capsys.readouterr().out)
    assert "old" == stale.read_text()
    monkeypatch.setattr(sys, "argv", ["make_grafana.py"])
    assert (0, "grafana/alerts/eventq.rules.yml written\n") == (tool.main(), capsys.readouterr().out)


def test_promtool_finds_the_rules_valid(promtool: str, tmp_path: Path) -> None:
    """As they are committed; and it would say so if they were not."""
    assert "" == check_rules(promtool, RULES.read_text(), tmp_path)
    assert "" != check_rules(promtool, RULES.read_text().replace("> 0.144", "> > 0.144"), tmp_path)


@pytest.mark.slow
def test_every_alert_does_what_its_tests_say(promtool: str) -> None:
    """eventq.tests.yml, by promtool: labels and annotations to the letter, near misses, recording rules."""
    done = subprocess.run(
        [promtool, "test", "rules", TESTS.name], cwd=ALERTS, capture_output=True, text=True, timeout=100, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_every_alert_has_a_test_that_fires_it_and_one_that_does_not() -> None:
    """But for the one that always fires. Recording rules are tested by name, too."""
    fired: set[str] = set()
    silent: set[str] = set()
    for each in (each for test in read(TESTS)["tests"] for each in test.get("alert_rule_test", ())):
        for expected in each["exp_alerts"]:
            assert {"summary", "description", "runbook_url"} == set(expected["exp_annotations"])
            fired.add(f"{each['alertname']} {expected['exp_labels']['severity']}")
        if not each["exp_alerts"]:
            silent.add(each["alertname"])
    written = {f"{rule['alert']} {rule['labels']['severity']}" for _, rule in alerts()}
    assert written == fired
    assert {each.split()[0] for each in written} - {"EventqWatchdog"} == silent
    expressions = " ".join(each["expr"] for test in read(TESTS)["tests"] for each in test.get("promql_expr_test", ()))
    assert [] == [name for name in recorded_metrics() if name not in expressions]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_no_condition_of_an_alert_can_go_unnoticed(mutant: Mutant, promtool: str, tmp_path: Path) -> None:
    """Each wait, condition and threshold is there for a case that eventq.tests.yml tells."""
    assert not survives(mutant, tmp_path)


# What an alert says


def test_every_alert_says_what_it_is() -> None:
    """Name, severity, a sentence that stays the same, one with the values, a page."""
    for _, rule in alerts():
        name, annotations = rule["alert"], rule["annotations"]
        assert re.fullmatch(r"Eventq([A-Z][a-z]+)+", name)
        assert rule["labels"]["severity"] in ("critical", "warning", "none")
        assert annotations["summary"].endswith(".") and "{{" not in annotations["summary"]
        assert annotations["description"].endswith(".") and ("{{" in annotations["description"] or name == "EventqWatchdog")
        assert f"docs/runbook.md#{name.lower()}" == annotations["runbook_url"]
        assert "dashboard_url" not in annotations


def test_alerts_are_these() -> None:
    """Names and severities are what people route and silence by."""
    expected = """
        EventqJobErrorBudgetBurn critical, EventqJobErrorBudgetBurnSlow warning, EventqJobsFailingLowTraffic warning,
        EventqJobsStalled warning, EventqJobRunningTooLong warning, EventqFailedSetGrowing warning,
        EventqQueueLatencyHigh warning, EventqQueueLatencyHigh critical, EventqQueueBacklogNotDraining warning,
        EventqQueueHasNoWorkers critical, EventqQueueNotProcessing critical, EventqWorkersSaturated warning,
        EventqSchedulerOverdue warning, EventqRedisUnreachable critical, EventqExporterDown critical,
        EventqScrapeIncomplete warning, EventqEventLagNearRetention critical, EventqEventsLost warning, EventqWatchdog none
    """
    written = [f"{rule['alert']} {rule['labels']['severity']}" for _, rule in alerts()]
    assert " ".join(expected.split()).split(", ") == written


def test_links_lead_where_the_settings_say(promtool: str, tmp_path: Path) -> None:
    """The runbook's address, and a dashboard with the queue chosen."""
    text = prometheus_rules(RuleSettings(runbook="https://example.org/runbook", dashboards="https://grafana.example.org/"))
    found = {
        rule["alert"]: rule["annotations"]
        for group in yaml.safe_load(text)["groups"] for rule in group["rules"] if "alert" in rule
    }  # fmt: skip
    assert "https://example.org/runbook#eventqworkerssaturated" == found["EventqWorkersSaturated"]["runbook_url"]
    assert (
        "https://grafana.example.org/d/eventq-workers?var-queue={{ $labels.queue }}"
        == found["EventqWorkersSaturated"]["dashboard_url"]
    )
    assert "https://grafana.example.org/d/eventq-pipeline" == found["EventqRedisUnreachable"]["dashboard_url"]
    uids = {url.split("/d/")[1].split("?")[0] for each in found.values() if (url := each["dashboard_url"])}
    assert uids <= {path.stem for path in (ROOT / "grafana" / "dashboards").iterdir()}
    assert "" == check_rules(promtool, text, tmp_path)


# What a rule is about


def test_every_metric_and_label_exists() -> None:
    """In the catalogue, or recorded; states are the states of jobs."""
    for group in rule_groups():
        for rule in group.rules:
            assert [] == unknown_names(rule.expression, recorded_metrics())
            for states in re.findall(r'state=~?"([^"]*)"', rule.expression):
                assert set(states.split("|")) <= {state.value for state in JobState}


@pytest.mark.parametrize(
    ("query", "unknown"),
    [
        ('sum by (queue) (rate(eventq_jobs_failed_total{job=~".*", job_name="a"}[5m]))', []),
        ("sum by (queue) (rate(eventq_jobs_lost_total[5m]))", ["eventq_jobs_lost_total", "queue"]),
        ('eventq_jobs_failed_total{state="failed"}', ["eventq_jobs_failed_total{state}"]),
        ("sum by (job_name) (eventq_workers)", ["job_name"]),
        ("sum (eventq_workers) by (job_name)", ["job_name"]),
        ("eventq_workers > on (worker) group_left (host) eventq_worker_info", []),
        ("eventq_workers > on (host) eventq_worker_up", ["host"]),
        ("eventq_job_wait_seconds", ["eventq_job_wait_seconds"]),
        ("histogram_quantile(.9, sum by (le) (rate(eventq_job_wait_seconds_bucket[$__rate_interval])))", []),
        ('eventq_workers{le="1"}', ["eventq_workers{le}"]),
        ('sum by (pod) (label_replace(eventq_workers{queue="a"}, "pod", "$1", "queue", "(.*)"))', []),
        ('sum by (pod) (label_replace(eventq_workers{queue="pod"}, "node", "$1", "queue", "(.*)"))', ["pod"]),
        ('count_values("size", eventq_workers{instance="$instance"} offset 5m)', []),
        ('{__name__=~"eventq_jobs_.*_total", job_name="a"}', []),
        ('{__name__=~"eventqueue_.*"}', ['__name__=~"eventqueue_.*"']),
        ('{__name__="eventq_upp"}', ["eventq_upp"]),
        ('ALERTS{alertname=~"Eventq.*", queue="$queue"} or up{job="a"} or scrape_samples_scraped', []),
        ('up{queue="a"}', ["up{queue}"]),
        ("recorded:here", ["recorded:here"]),
        ("node_load1 # a comment", ["node_load1"]),
    ],
)  # fmt: skip
def test_lint_finds_what_does_not_exist(query: str, unknown: list[str]) -> None:
    """A metric by its name, a label with the metric that lacks it."""
    assert unknown == unknown_names(query)


def test_lint_knows_what_it_is_told() -> None:
    """Recording rules with their labels, and labels that everything has."""
    assert [] == unknown_names('recorded:here{a="1"}', {"recorded:here": ("a",)})
    assert ["recorded:here{b}"] == unknown_names('recorded:here{b="1"}', {"recorded:here": ("a",)})
    assert [] == unknown_names('sum by (cluster) (eventq_workers{cluster="x"})', extra_labels=["cluster"])


@pytest.mark.parametrize("query", ["sum(eventq_up", "eventq_up)", 'eventq_up{a="1")', "eventq_up ?", "eventq_up{a='}"])
def test_lint_refuses_what_is_no_promql(query: str) -> None:
    """Rather than find nothing in it."""
    with pytest.raises(ValueError, match=r"closes|what is"):
        unknown_names(query)


@pytest.mark.parametrize("settings", [RuleSettings(), SCALED, RuleSettings(scrape_interval=60)])
def test_no_window_is_shorter_than_three_scrapes(settings: RuleSettings) -> None:
    """Nor than three evaluations; and nothing is evaluated more often than it is scraped."""
    found = [seconds_of(text) for group in rule_groups(settings) for rule in group.rules for text in ranges(rule.expression)]
    assert len(found) > 20 and min(found) >= 3 * settings.every >= 3 * settings.scrape_interval


def test_windows_are_those_of_the_names() -> None:
    """`…:ratio_rate3d` looks over three days."""
    recorded = {rule.name: rule.expression for rule in rule_groups()[0].rules}
    for name in recorded:
        window = re.search(r"\d+[mhd]$", name)
        if window is not None and not name.endswith("ratio_rate5m"):
            assert {window[0]} == set(ranges(recorded[name])), name


# What can be chosen


def test_scaled_rules_are_valid_and_scaled(promtool: str, tmp_path: Path) -> None:
    """An hour is a minute, in windows, waits, intervals and ages; names stay."""
    text = prometheus_rules(SCALED)
    assert "" == check_rules(promtool, text, tmp_path)
    scaled = yaml.safe_load(text)["groups"]
    assert {"1s"} == {group["interval"] for group in scaled}
    rules = {rule.get("alert") or rule.get("record"): rule for group in scaled for rule in group["rules"]}
    assert "[1h12m]" in rules["queue:eventq_jobs_failed_per_finished:ratio_rate3d"]["expr"]
    assert "[5s]" in rules["queue:eventq_jobs_failed:rate5m"]["expr"]
    latency = rules["EventqQueueLatencyHigh"]  # the critical one, which comes last
    assert "> 30\n" in latency["expr"] and "5s" == latency["for"]
    assert "5s" == rules["EventqEventsLost"]["keep_firing_for"]
    assert "> 2" in rules["EventqSchedulerOverdue"]["expr"]


def test_objective_moves_thresholds_and_the_jobs_that_are_enough() -> None:
    """With a tenth of the budget a tenth of the failures, of ten times the jobs."""
    strict = prometheus_rules(RuleSettings(objective=0.999))
    for threshold in (
        "1h > 0.0144\n",
        "6h > 0.006\n",
        "1d > 0.003\n",
        "3d > 0.001\n",
        "1h >= 209\n",
        "6h >= 500\n",
        "allows 0.1%",
    ):
        assert threshold in re.sub(r"\n +allows", " allows", strict), threshold
        assert threshold not in RULES.read_text()


def test_every_parameter_makes_a_difference() -> None:
    """None is there in vain."""
    changed: dict[str, Any] = {
        "objective": 0.98, "labels": ("cluster", "queue"), "selector": 'job="x"', "runbook": "x", "dashboards": "x",
        "saturation": 0.5, "lag_share": 0.7, "scrape_interval": 70, "interval": 70, "latency_warning": 400, "run_minimum": 1000,
    }  # fmt: skip
    for field in fields(RuleSettings):
        values = {field.name: changed[field.name] if field.name in changed else getattr(RuleSettings(), field.name) * 1.1}
        assert prometheus_rules(RuleSettings(**values)) != prometheus_rules(), field.name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": 1}, "objective 1: must lie between 0 and 1"),
        ({"objective": 0.9}, "page_burn_1h 14.4: times the budget of objective 0.9 it is 144% of all jobs"),
        ({"saturation": 1.5}, "saturation 1.5: must lie"),
        ({"latency_warning": -1}, "latency_warning -1: must be more than 0"),
        ({"latency_for": -1}, "latency_for -1: must be at least 0"),
        ({"failed_growth": float("nan")}, "failed_growth nan: must be a number"),
        ({"failed_growth": "100"}, "failed_growth '100': must be a number"),
        ({"failed_growth": True}, "failed_growth True: must be a number"),
        ({"latency_warning": 2000}, "latency_warning 2000: is more than latency_critical 1800"),
        ({"run_minimum": 4000}, "run_minimum 4000: is more than run_unknown 3600"),
        ({"labels": ("namespace",)}, "labels ('namespace',): must have queue among them"),
        ({"labels": ("queue", "queue")}, "nothing twice"),
        ({"labels": ("queue", "job_name")}, "'job_name' is not queue nor"),
        ({"labels": ("queue", "a-b")}, "'a-b' is not"),
        ({"labels": "queue"}, "labels 'queue': must be a tuple"),
        ({"selector": ""}, "selector '': must be matchers"),
        ({"selector": 'job="a"}) or vector(1) #'}, "must be matchers"),
        ({"selector": None}, "selector None: must be a str"),
        ({"time_scale": 1 / 60}, "a window of 5m becomes 5s, and scrape_interval 15 and interval 60 allow 45s at least"),
        ({"scrape_interval": 120}, "a window of 5m becomes 5m, and scrape_interval 120 and interval 60 allow 6m at least"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name_and_value(values: dict[str, Any], message: str) -> None:
    """Before it becomes a rule that never fires, or always."""
    with pytest.raises(ValueError, match=re.escape(message)):
        RuleSettings(**values)


def test_labels_and_selector_may_be_ones_own(promtool: str, tmp_path: Path) -> None:
    """A cluster beside the queue, and matchers of labels that only this Prometheus knows."""
    text = prometheus_rules(RuleSettings(labels=("cluster", "queue"), selector='job="eventq", env!~"dev,.*"'))
    assert "sum by (cluster, queue)" in text and "max by (cluster, job)" in text and 'env!~"dev,.*"' in text
    assert "" == check_rules(promtool, text, tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("latency_warning=10m", ("latency_warning", 600.0)),
        ("latency_warning=90", ("latency_warning", 90.0)),
        ("latency_for=0", ("latency_for", 0.0)),
        ("saturation=0.8", ("saturation", 0.8)),
        ("labels=cluster, queue", ("labels", ("cluster", "queue"))),
        ('selector=job="a"', ("selector", 'job="a"')),
    ],
)
def test_a_parameter_is_read_from_text(text: str, expected: tuple[str, object]) -> None:
    """As the command line gives it."""
    assert expected == parse_setting(text)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.5, "500ms"), (90, "1m30s"), (4320, "1h12m"), (259_200, "3d")])
def test_durations_are_written_and_read(seconds: float, text: str) -> None:
    """As Prometheus writes them."""
    assert (text, seconds) == (duration_text(seconds), seconds_of(text))


# For Kubernetes


def test_kubernetes_has_the_same_rules() -> None:
    """A PrometheusRule with the same groups, and a ServiceMonitor whose job the rules select."""
    folder = ROOT / "grafana" / "kubernetes"
    manifest, monitor = read(folder / "prometheusrule.yaml"), read(folder / "servicemonitor.yaml")
    assert ("monitoring.coreos.com/v1", "PrometheusRule") == (manifest["apiVersion"], manifest["kind"])
    assert read(RULES)["groups"] == manifest["spec"]["groups"]
    assert ("monitoring.coreos.com/v1", "ServiceMonitor") == (monitor["apiVersion"], monitor["kind"])
    assert ["15s"] == [endpoint["interval"] for endpoint in monitor["spec"]["endpoints"]]
    job = monitor["spec"]["selector"]["matchLabels"][monitor["spec"]["jobLabel"]]
    assert re.fullmatch(RuleSettings().selector.removeprefix('job=~"').removesuffix('"'), job)


# The command


def run_command(*arguments: str) -> tuple[int, str, str]:
    """Return exit code, output and errors of `eventq alert-rules`."""
    done = subprocess.run(
        [sys.executable, "-m", "eventq", "alert-rules", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_command_prints_the_rules_with_the_users_own_numbers() -> None:
    """They say in their first line by what command they were made."""
    code, out, err = run_command("--objective", "0.999", "--set", "latency_warning=10m", "--format", "kubernetes")
    made_by = "eventq alert-rules --objective 0.999 --set latency_warning=10m --format kubernetes"
    assert (0, "") == (code, err)
    assert kubernetes_rules(RuleSettings(objective=0.999, latency_warning=600), made_by=made_by) == out
    assert out.startswith(f"# Made by `{made_by}`")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--objective", "0.5"], "page_burn_1h 14.4: times the budget"),
        (["--set", "latency=5"], "'latency=5': must be NAME=VALUE, with a name of objective, "),
        (["--set", "latency_warning=soon"], "latency_warning 'soon': must be seconds, or a duration such as"),
        (["--set", "saturation=all"], "saturation 'all': must be a number"),
    ],
)
def test_command_refuses_in_one_line(arguments: list[str], message: str) -> None:
    """And with exit code 2."""
    code, out, err = run_command(*arguments)
    assert (2, "", 1) == (code, out, len(err.splitlines()))
    assert err.startswith(f"eventq: {message}")


# The runbook


def test_runbook_has_a_section_for_every_alert() -> None:
    """In the same order, each in the same parts, so that whoever is woken finds his way; and a line of the table."""
    text = RUNBOOK.read_text()
    names = list(dict.fromkeys(rule["alert"] for _, rule in alerts()))
    assert names == list(sections())
    for name, section in sections().items():
        assert list(PARTS) == re.findall(r"^\*\*([^*]+)\*\*", section, re.MULTILINE), name
        severities = ", ".join(rule["labels"]["severity"] for _, rule in alerts() if rule["alert"] == name)
        assert f"| [{name}](#{name.lower()}) | {severities} | " in text


def test_runbook_names_every_parameter() -> None:
    """Each where it belongs, and none that is not there."""
    names = {field.name for field in fields(RuleSettings)}
    told = set(re.findall(r"`([a-z]+(?:_[a-z0-9]+)*)`", RUNBOOK.read_text()))
    assert names <= told
    tuned = [name for text in sections().values() for name in re.findall(r"`(\w+)`", text.split("**Tune.**")[1])]
    assert set(tuned) <= names | {"none"}


def test_runbook_names_commands_that_exist() -> None:
    """With options that they have."""
    group: Any = typer.main.get_command(app)
    spoken = re.findall(r"`eventq ([^`]+)`", RUNBOOK.read_text())
    assert len(spoken) > 20
    for words in map(str.split, spoken):
        command: Any = group.get_command(None, words[0])
        assert command is not None, words
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, words


def test_queries_of_the_runbook_are_valid(promtool: str, tmp_path: Path) -> None:
    """As Prometheus reads them; that what they name exists is checked with the other pages."""
    queries = re.findall(r"^```promql\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    rules = [{"record": f"query:of:runbook{index}", "expr": query} for index, query in enumerate(queries)]
    assert len(rules) > 10
    assert "" == check_rules(promtool, yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}), tmp_path)
