"""docker-compose.yml and what it mounts: there is no Docker here to run it, so everything that can be known without is checked."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from eventq_prometheus.dashboards import files
from eventq_prometheus.spread import labels_of

from ..conftest import WaitUntil, skip_for
from ..servers import free_port
from .stack_programs import ROOT, Program, alertmanager, answers, get, post

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
GRAFANA = ROOT / "grafana"
ALERTMANAGER = GRAFANA / "alertmanager" / "alertmanager.yml"
TEMPO: dict[str, Any] = yaml.safe_load((GRAFANA / "tempo" / "tempo.yml").read_text())
#: Services whose health cannot be looked at, and why; nobody may wait for them.
WITHOUT_HEALTH = {
    "tempo": "its image has nothing but Tempo in it, which cannot ask itself",
    "tracer": "it answers nobody; what it could not send it keeps and sends again",
}
#: Services that are built here, by the target of the Dockerfile.
BUILT = {name: service["build"]["target"] for name, service in SERVICES.items() if "build" in service}


def mounts(service: str) -> list[tuple[str, str, bool]]:
    """Return source, destination and whether it is read-only of each of a service's mounts."""
    parts = [text.split(":") for text in SERVICES[service].get("volumes", ())]
    return [(part[0], part[1], part[2:] == ["ro"]) for part in parts]


# docker-compose.yml


def test_compose_file_is_what_the_specification_allows() -> None:
    """By the schema of the specification itself. It knows no `version:` any more."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "version" not in COMPOSE


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_kept_in_bounds(name: str) -> None:
    """Restarted, its log rotated, its health looked at, its ports on loopback only, its image of one version."""
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert ("healthcheck" in service) is (name not in WITHOUT_HEALTH)
    assert name in WITHOUT_HEALTH or service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    for port in service.get("ports", ()):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port), port
    if name not in BUILT:
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", service["image"]), service["image"]


@pytest.mark.parametrize("name", SERVICES)
def test_service_waits_for_what_is_started_with_it(name: str) -> None:
    """Until it is healthy. What it waits for is in every profile that it is in, or in none, which is always started."""
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"} and other not in WITHOUT_HEALTH
        profiles = SERVICES[other].get("profiles")
        assert profiles is None or set(SERVICES[name]["profiles"]) <= set(profiles), other


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_cannot_be_written(name: str) -> None:
    """A path that is missing would be made, as an empty folder of root."""
    for source, _, is_read_only in mounts(name):
        if source.startswith("."):
            assert (ROOT / source).exists() and is_read_only, source
        else:
            assert source in COMPOSE["volumes"] and not is_read_only, source


def test_server_alone_is_what_comes_without_a_profile() -> None:
    """`docker compose up -d` stays what one tries eventq against."""
    assert ["redis"] == [name for name, service in SERVICES.items() if "profiles" not in service]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ("redis", "grafana", "tempo")])
def test_options_of_a_command_are_options_of_the_program(name: str) -> None:
    """As its own help lists them; of Prometheus and Alertmanager, that of the version which is installed here.

    Tempo is not to be had as anything but an image; its two options are those of its examples.
    """
    command = SERVICES[name]["command"]
    flags = re.findall(r"--[a-z][\w.-]*", " ".join(command))
    program = _program(name, command)
    done = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    missing = [flag for flag in flags if not re.search(rf"{flag}\b", done.stdout + done.stderr)]
    assert done.returncode == 0 and missing == [], done.stdout + done.stderr
    assert flags != [] or name in ("tracer", "worker")


def _program(name: str, command: list[str]) -> list[str]:
    if command[0] == "python":
        return [sys.executable, *command[1:3]]
    if command[0] == "eventq":
        return [sys.executable, "-m", *command[:2]]
    found = alertmanager() if name == "alertmanager" else shutil.which(name)
    if found is None:
        skip_for(f"no {name} in PATH (Debian: apt-get install prometheus prometheus-alertmanager)")
    return [str(found)]


# Dockerfile


def test_image_is_made_of_what_the_dockerfile_copies(tmp_path: Path) -> None:
    """What .dockerignore lets through is enough to build the wheel, and the demo runs from its own folder."""
    text = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = [source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE) for source in line.split()]
    assert {f"!{source}" for source in copied} == {line for line in ignored if line.startswith("!")}
    assert "*" in ignored
    for source in copied:
        (tmp_path / source).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, tmp_path / source, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, tmp_path / source)
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "."], tmp_path)
    assert list((tmp_path / "dist").glob("eventq-*.whl"))
    for module in ("tools.observe.load", "tools.observe.sink"):
        _run([sys.executable, "-m", module, "--help"], tmp_path)


def test_targets_that_are_built_are_stages_of_the_dockerfile() -> None:
    """And what is built without a target is the exporter, alone; no stage is of another Python than the others."""
    stages = re.findall(r"^FROM (\S+)(?: AS (\w+))?$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named = {name for _, name in stages if name}
    assert set(BUILT.values()) <= named
    assert stages[-1] == ("exporter", "")
    bases = {base for base, _ in stages if base not in named}
    assert len(bases) == 1 and re.fullmatch(r"python:3\.\d+-slim-\w+", bases.pop())


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr


# Prometheus


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """The file system of the container of Prometheus, as far as it is mounted."""
    for source, destination, _ in mounts("prometheus"):
        if source.startswith("."):
            place = tmp_path / destination.removeprefix("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(ROOT / source)
    return tmp_path


def test_prometheus_reads_its_settings_as_they_are_mounted(mounted: Path) -> None:
    """The rules are found where they are mounted, and only they; so are the targets."""
    if shutil.which("promtool") is None:
        skip_for("no promtool in PATH (Debian: apt-get install prometheus)")
    (path,) = [word.partition("=")[2] for word in SERVICES["prometheus"]["command"] if word.startswith("--config.file=")]
    command = ["promtool", "check", "config", str(mounted / path.removeprefix("/"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS: 1 rule files found" in done.stdout and "WARNING" not in done.stdout + done.stderr, done.stdout


def test_addresses_are_those_of_the_services() -> None:
    """Of targets, receivers of alerts, data sources, and where spans go: a service, and a port that it listens on."""
    ports = {
        "exporter": re.findall(r":(\d+)", " ".join(SERVICES["exporter"]["command"])),
        "alertmanager": ["9093"],
        "prometheus": ["9090"],
        "sink": re.findall(r"--port\D+(\d+)", " ".join(SERVICES["sink"]["command"])) or ["9095"],
        "tempo": [str(TEMPO["server"]["http_listen_port"]), _otlp_ports()["http"]],
    }
    texts = [*SERVICES["tracer"]["environment"].values()]
    texts += [path.read_text() for path in (GRAFANA / "prometheus" / "targets").iterdir()]
    texts += [ALERTMANAGER.read_text(), *(path.read_text() for path in (GRAFANA / "provisioning").rglob("*.yaml"))]
    found = re.findall(r"(?:http://|\[)([a-z]+):(\d+)", "\n".join(texts))
    assert {(name, port) for name, its in ports.items() for port in its} == set(found)


def _otlp_ports() -> dict[str, str]:
    """Return the port that Tempo receives on, by protocol."""
    protocols = TEMPO["distributor"]["receivers"]["otlp"]["protocols"]
    return {name: each["endpoint"].removeprefix("0.0.0.0:") for name, each in protocols.items()}


# Tempo and the tracer


def test_tempo_listens_on_the_ports_that_are_let_out() -> None:
    """To Grafana, and to whoever sends spans by either protocol."""
    ports = {port.rpartition(":")[2] for port in SERVICES["tempo"]["ports"]}
    assert {str(TEMPO["server"]["http_listen_port"]), *_otlp_ports().values()} == ports
    assert {"grpc", "http"} == set(_otlp_ports())


def test_tempo_keeps_what_it_has_on_its_volume_and_not_for_ever() -> None:
    """A path elsewhere would be lost with the container, and could not be written by its user."""
    destinations = {source: destination for source, destination, _ in mounts("tempo")}
    assert f"-config.file={destinations['./grafana/tempo/tempo.yml']}" in SERVICES["tempo"]["command"]
    trace = TEMPO["storage"]["trace"]
    assert "local" == trace["backend"]
    for path in (trace["wal"]["path"], trace["local"]["path"]):
        assert path.startswith(f"{destinations['tempo-data']}/")
    assert "48h" == TEMPO["overrides"]["defaults"]["compaction"]["block_retention"]
    assert TEMPO["usage_report"]["reporting_enabled"] is False


def test_tracer_sends_spans_and_nothing_that_tempo_does_not_take() -> None:
    """By HTTP, which the path of its endpoint is of; logs and metrics would be refused each time."""
    settings = SERVICES["tracer"]["environment"]
    assert "http/protobuf" == settings["OTEL_EXPORTER_OTLP_PROTOCOL"]
    assert ("none", "none") == (settings["OTEL_LOGS_EXPORTER"], settings["OTEL_METRICS_EXPORTER"])


def test_every_program_of_the_demo_has_a_service_name_of_its_own() -> None:
    """Spans are told apart by it; without one they are all of `unknown_service`."""
    names = [SERVICES[name]["environment"]["OTEL_SERVICE_NAME"] for name in ("producer", "worker", "tracer")]
    assert len(set(names)) == 3
    for name in ("producer", "worker"):
        assert SERVICES["exporter"]["environment"]["EVENTQ_URL"] == SERVICES[name]["environment"]["EVENTQ_URL"]


# Alertmanager


@pytest.fixture
def amtool() -> None:
    """Alertmanager's own reader of its settings; skips where it is missing."""
    if shutil.which("amtool") is None:
        skip_for("no amtool in PATH (Debian: apt-get install prometheus-alertmanager)")


@pytest.mark.usefixtures("amtool")
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=EventqWatchdog severity=none", "dead-mans-switch"),
        ("alertname=EventqJobErrorBudgetBurn severity=critical queue=payments", "page"),
        ("alertname=EventqJobsStalled severity=warning queue=payments", "ticket"),
    ],
)
def test_alert_goes_to_its_receiver(labels: str, receiver: str) -> None:
    """By severity; the watchdog by its name."""
    command = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, receiver), done.stdout + done.stderr


@pytest.mark.usefixtures("amtool")
def test_alertmanager_reads_its_settings() -> None:
    """Alerts are grouped by what they are about."""
    done = subprocess.run(["amtool", "check-config", ALERTMANAGER], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ["alertname", "namespace", "queue"] == yaml.safe_load(ALERTMANAGER.read_text())["route"]["group_by"]


@pytest.fixture
async def alerts_url(tmp_path: Path, wait_until: WaitUntil) -> AsyncIterator[str]:
    """An Alertmanager with our settings, which takes alerts there. Nobody hears of them: the receivers are elsewhere."""
    program = alertmanager()
    if program is None:
        skip_for("no alertmanager in PATH (Debian: apt-get install prometheus-alertmanager)")
    url = f"http://127.0.0.1:{free_port()}"
    options = (f"--config.file={ALERTMANAGER}", f"--storage.path={tmp_path}", "--cluster.listen-address=")
    with Program(str(program), *options, f"--web.listen-address={url.removeprefix('http://')}"):
        await wait_until(lambda: answers(f"{url}/-/ready"), 30, description="an Alertmanager that answers")
        yield f"{url}/api/v2/alerts"


@pytest.mark.parametrize("namespace", [{}, {"namespace": "shop"}])
@pytest.mark.parametrize("blind", ["EventqRedisUnreachable", "EventqExporterDown"])
async def test_blindness_silences_the_rest_of_the_namespace(
    alerts_url: str, wait_until: WaitUntil, blind: str, namespace: dict[str, str]
) -> None:
    """Not itself, nor the watchdog, nor another namespace, nor what is not about eventq."""
    alerts = [
        {"alertname": blind, "severity": "critical", "job": "eventq", **namespace},
        {"alertname": "EventqQueueLatencyHigh", "severity": "critical", "queue": "mail", **namespace},
        {"alertname": "EventqJobsStalled", "severity": "warning", "queue": "other", **namespace},
        {"alertname": "EventqQueueLatencyHigh", "severity": "critical", "queue": "mail", "namespace": "elsewhere"},
        {"alertname": "EventqWatchdog", "severity": "none", **namespace},
        {"alertname": "DiskFull", "severity": "critical", **namespace},
    ]
    assert [1, 2] == await _silenced(alerts_url, wait_until, alerts)


async def test_critical_alert_silences_the_warnings_of_its_queue(alerts_url: str, wait_until: WaitUntil) -> None:
    """One call is enough; other queues, of this namespace or another, are other matters."""
    alerts = [
        {"alertname": "EventqQueueLatencyHigh", "severity": "critical", "queue": "mail", "namespace": "shop"},
        {"alertname": "EventqQueueLatencyHigh", "severity": "warning", "queue": "mail", "namespace": "shop"},
        {"alertname": "EventqJobsStalled", "severity": "warning", "queue": "mail", "namespace": "shop"},
        {"alertname": "EventqJobErrorBudgetBurn", "severity": "critical", "queue": "mail", "namespace": "shop"},
        {"alertname": "EventqJobsStalled", "severity": "warning", "queue": "images", "namespace": "shop"},
        {"alertname": "EventqJobsStalled", "severity": "warning", "queue": "mail", "namespace": "test"},
        {"alertname": "DiskFull", "severity": "warning", "queue": "mail", "namespace": "shop"},
    ]
    assert [1, 2] == await _silenced(alerts_url, wait_until, alerts)


async def _silenced(url: str, wait_until: WaitUntil, alerts: list[dict[str, str]]) -> list[int]:
    """Tell Alertmanager of alerts and return which of them it holds back, by their place in the list."""
    assert 200 == post(url, [{"labels": labels} for labels in alerts])

    def states() -> dict[int, bool]:
        return {alerts.index(each["labels"]): bool(each["status"]["inhibitedBy"]) for each in json.loads(get(url))}

    def silenced() -> list[int]:
        return sorted(place for place, is_silenced in states().items() if is_silenced)

    await wait_until(lambda: len(states()) == len(alerts), description="all alerts")
    # Which one inhibits is known once the source is: the others are looked at as long as that takes.
    await wait_until(lambda: len(silenced()) >= 2, description=f"two that are held back: {states()}")
    return silenced()


# Grafana


def test_data_sources_and_dashboards_are_provisioned_for_reading_only() -> None:
    """Uids are given, so that links hold; nobody can edit what the next start would undo."""
    (sources,) = [yaml.safe_load(path.read_text()) for path in (GRAFANA / "provisioning" / "datasources").iterdir()]
    assert {"prometheus": "prometheus", "alertmanager": "alertmanager", "tempo": "tempo"} == {
        each["uid"]: each["type"] for each in sources["datasources"]
    }
    assert [False] * 3 == [each["editable"] for each in sources["datasources"]]
    assert ["prometheus"] == [each["uid"] for each in sources["datasources"] if each.get("isDefault")]
    (provided,) = [yaml.safe_load(path.read_text()) for path in (GRAFANA / "provisioning" / "dashboards").iterdir()]
    (provider,) = provided["providers"]
    assert (provider["type"], provider["allowUiUpdates"], provider["disableDeletion"]) == ("file", False, True)
    destinations = {source: destination for source, destination, _ in mounts("grafana")}
    assert provider["options"]["path"] == destinations["./grafana/dashboards"]


def test_grafana_opens_with_a_dashboard_that_is_mounted_and_lets_nobody_in_as_more_than_a_viewer() -> None:
    """Without a login there is no administrator either."""
    settings = SERVICES["grafana"]["environment"]
    home = settings["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (GRAFANA / "dashboards" / Path(home).name).exists()
    assert str(Path(home).parent) in [destination for _, destination, _ in mounts("grafana")]
    assert ("true", "Viewer") == (settings["GF_AUTH_ANONYMOUS_ENABLED"], settings["GF_AUTH_ANONYMOUS_ORG_ROLE"])
    assert ("true", "false") == (settings["GF_AUTH_DISABLE_LOGIN_FORM"], settings["GF_AUTH_BASIC_ENABLED"])


def test_exemplars_lead_to_their_trace() -> None:
    """By the label that the exporter gives them: to Tempo, and to the job explorer, which a viewer may open."""
    (sources,) = [yaml.safe_load(path.read_text()) for path in (GRAFANA / "provisioning" / "datasources").iterdir()]
    by_uid = {each["uid"]: each for each in sources["datasources"]}
    explore, explorer = by_uid["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    labels = labels_of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    assert labels is not None and explore["name"] == explorer["name"]
    assert "4bf92f3577b34da6a3ce929d0e0e4736" == labels[explore["name"]]
    assert "tempo" == by_uid[explore["datasourceUid"]]["type"]
    path, _, variable = explorer["url"].partition("?")
    dashboard = json.loads(files()[f"dashboards/{path.removeprefix('/d/')}.json"])
    # Grafana puts environment variables in place of $NAME there, and $ in place of $$.
    assert variable.replace("$$", "$") in [f"var-{each['name']}=${{__value.raw}}" for each in dashboard["templating"]["list"]]
    assert "$" not in explorer["url"].replace("$$", "")


def test_data_source_knows_how_often_is_scraped() -> None:
    """$__rate_interval is four times that; a scale of its own would make gaps."""
    (sources,) = [yaml.safe_load(path.read_text()) for path in (GRAFANA / "provisioning" / "datasources").iterdir()]
    scraped = yaml.safe_load((GRAFANA / "prometheus" / "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert scraped == sources["datasources"][0]["jsonData"]["timeInterval"]
