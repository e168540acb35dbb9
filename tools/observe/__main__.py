"""Everything around exporter and tracer on one machine, without Docker: a server, a load, Prometheus with the rules,
Alertmanager, and a receiver of spans.

`make observe`, or `python -m tools.observe`; Ctrl-C ends it all. Prometheus and Alertmanager are left out where
they are not installed.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import signal
import sys
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Final

from eventq import EventqError
from eventq.embedded import start_embedded
from eventq_prometheus.promql import duration_text
from tools.observe.processes import Failed, Family, Stopped, choose_port
from tools.observe.settings import LEAST, Addresses, rule_settings, write_settings

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import FrameType

    from eventq_prometheus.rules import RuleSettings

#: Seconds between two looks at whether everything still runs, and that the server gets to end.
LOOK_EVERY: Final = 0.2
SERVER_SECONDS: Final = 10.0
#: Where exporter, Prometheus, Alertmanager, and the receivers of alerts and of spans are if nothing else is there.
PORTS: Final = (10650, 9090, 9093, 9095, 4318)
#: Seconds after which the watchdog is missed, before they are scaled, and at least.
SILENCE: Final = 180.0
LEAST_SILENCE: Final = 15.0
#: Seconds between two repetitions of an alert to Alertmanager, before they are scaled.
RESEND: Final = 60.0
#: The receiver of spans, and the file that it writes.
SPANS: Final = "spans"
#: The programs, by the names that Debian and others give them.
PROMETHEUS: Final = ("prometheus",)
ALERTMANAGER: Final = ("alertmanager", "prometheus-alertmanager")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM, or as long as was asked. Exit code 0: ended as asked. 1: something failed. 2: wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        rules = rule_settings(float(options.time_scale))
    except ValueError as error:
        parser.error(str(error))
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        with tempfile.TemporaryDirectory(prefix="eventq-observe-") as folder, _server(options.url) as url:
            _observe(Path(folder), url, rules, options, stopping)
    except Stopped:
        return 0
    except (Failed, EventqError) as error:
        print(f"observe: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="observe", description="Exporter, tracer, Prometheus, Alertmanager and a load, until Ctrl-C."
    )
    parser.add_argument(
        "--url", help="the server; default: an embedded one. The load's queues: emails, images, payments, reports"
    )
    parser.add_argument(
        "--time-scale",
        type=Fraction,
        default=Fraction(1, 60),
        metavar="SCALE",
        help="what the times of rules and notifications are multiplied by; 1/60: an hour is a minute (1/60)",
    )
    parser.add_argument(
        "--trouble",
        type=float,
        default=60.0,
        metavar="SECONDS",
        help="payments fail for so long, and then not for twice as long; 0 for never (60)",
    )
    parser.add_argument("--seconds", type=float, metavar="SECONDS", help="end by itself after so long; default: never")
    return parser


@contextlib.contextmanager
def _server(url: str | None) -> Generator[str]:
    """Give the address of the server that was named, or of an embedded one, which has ended when this ends."""
    if url is not None:
        yield url
        return
    server = start_embedded("embedded://")
    try:
        yield server.url
    finally:
        server.stop()
        deadline = time.monotonic() + SERVER_SECONDS
        while server.directory.exists() and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)


def _observe(folder: Path, url: str, rules: RuleSettings, options: argparse.Namespace, stopping: threading.Event) -> None:
    """Start everything, say where it is, and wait."""
    prometheus, alertmanager = _find(PROMETHEUS), _find(ALERTMANAGER)
    with contextlib.ExitStack() as held, Family(folder, stopping) as family:
        addresses = Addresses(*(choose_port(port, held) for port in PORTS))
        write_settings(folder, addresses, rules)
        _start_tracer(family, url, addresses)
        _start_load(family, url, addresses, options.trouble)
        print(f"exporter      http://127.0.0.1:{addresses.exporter}/", flush=True)
        # A file, as there are dozens of them a second.
        print(f"spans         tail -f {family.log(SPANS)}", flush=True)
        if prometheus is None:
            _tell_missing("prometheus", "rules nor alerts", PROMETHEUS)
        if alertmanager is None:
            _tell_missing("alertmanager", "notifications", ALERTMANAGER)
        if prometheus is not None and alertmanager is not None:
            _start_alertmanager(family, alertmanager, folder, addresses, rules)
        if prometheus is not None:
            _start_prometheus(family, prometheus, folder, addresses, rules)
        print(f"rules         times x {options.time_scale}; Ctrl-C ends it all", flush=True)
        deadline = None if options.seconds is None else time.monotonic() + options.seconds
        while not stopping.wait(LOOK_EVERY) and (deadline is None or time.monotonic() < deadline):
            family.check()


def _start_load(family: Family, url: str, addresses: Addresses, trouble: float) -> None:
    here = {"EVENTQ_URL": url}
    # What the shop does itself has spans too, and the jobs are added in them.
    shop = {**here, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{addresses.spans}"}
    load = [sys.executable, "-m", "tools.observe.load"]
    family.start("worker", [*load, "worker"], environment={**shop, "OTEL_SERVICE_NAME": "shop-worker"})
    produce = [*load, "producer", "--trouble", str(trouble)]
    family.start("producer", produce, environment={**shop, "OTEL_SERVICE_NAME": "shop"})
    listen = f"127.0.0.1:{addresses.exporter}"
    family.start("exporter", [sys.executable, "-m", "eventq", "exporter", "--per-worker", "--listen", listen], environment=here)
    family.wait_for(f"http://{listen}/readyz")


def _start_tracer(family: Family, url: str, addresses: Addresses) -> None:
    receiver = f"http://127.0.0.1:{addresses.spans}"
    family.start(SPANS, [sys.executable, "-m", "tools.observe.spans", "--port", str(addresses.spans)])
    family.wait_for(f"{receiver}/")
    environment = {
        "EVENTQ_URL": url,
        "OTEL_SERVICE_NAME": "eventq-tracer",
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        # The receiver takes spans only.
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
    }
    family.start("tracer", [sys.executable, "-m", "eventq", "tracer"], environment=environment)


def _start_alertmanager(family: Family, program: str, folder: Path, addresses: Addresses, rules: RuleSettings) -> None:
    silence = max(LEAST_SILENCE, SILENCE * rules.time_scale)
    command = [sys.executable, "-m", "tools.observe.sink", "--port", str(addresses.sink), "--silence", str(silence)]
    family.start("sink", command, is_shown=True)
    family.wait_for(f"http://127.0.0.1:{addresses.sink}/")
    listen = f"127.0.0.1:{addresses.alertmanager}"
    command = [
        program,
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address={listen}",
        "--cluster.listen-address=",
    ]
    family.start("alertmanager", command)
    family.wait_for(f"http://{listen}/-/ready")
    print(f"alertmanager  http://{listen}/", flush=True)


def _start_prometheus(family: Family, program: str, folder: Path, addresses: Addresses, rules: RuleSettings) -> None:
    listen = f"127.0.0.1:{addresses.prometheus}"
    command = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address={listen}",
        "--enable-feature=exemplar-storage",
        # What fired before Prometheus knew where Alertmanager is gets there with the next repetition.
        f"--rules.alert.resend-delay={duration_text(max(LEAST, RESEND * rules.time_scale))}",
    ]
    family.start("prometheus", command)
    family.wait_for(f"http://{listen}/-/ready")
    print(f"prometheus    http://{listen}/", flush=True)


def _tell_missing(name: str, what: str, names: Sequence[str]) -> None:
    print(f"{name:<13} is not installed: no {what} (Debian: apt-get install {names[-1]})", flush=True)


def _find(names: Sequence[str]) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)


if __name__ == "__main__":
    sys.exit(main())
