"""Programs as a test runs them: started, read, asked, ended; and the processes of this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 40.0


def missing_programs() -> str | None:
    """Say what to install to have Prometheus and Alertmanager, None where both are here."""
    if shutil.which("prometheus") is None:
        return "no prometheus in PATH (Debian: apt-get install prometheus)"
    if alertmanager() is None:
        return "no alertmanager in PATH (Debian: apt-get install prometheus-alertmanager)"
    return None


def alertmanager() -> str | None:
    """Return the program, by Debian's name for it or its own."""
    return shutil.which("alertmanager") or shutil.which("prometheus-alertmanager")


class Program:
    """A program in the background. `lines`: what it has printed so far, errors too."""

    def __init__(self, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._environment = {**os.environ, **(environment or {})}
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, cwd=ROOT, env=self._environment, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="output", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(signal.SIGTERM)

    @property
    def output(self) -> str:
        """All it has printed."""
        return "\n".join(self.lines)

    def end(self, number: signal.Signals) -> int:
        """Send a signal, unless it has ended, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit code once it has ended and all it printed has been read."""
        assert self.process.stdout is not None
        try:
            code = self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
        self._reader.join(STOP_SECONDS)
        self.process.stdout.close()
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))


class Observed(Program):
    """A run of `python -m tools.observe`."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        super().__init__(sys.executable, "-m", "tools.observe", *arguments, environment=environment)

    @property
    def is_up(self) -> bool:
        """Whether everything has been started. Fails where it ended instead."""
        assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.output}"
        return any(line.startswith("rules ") for line in self.lines)

    def url(self, name: str) -> str:
        """Return where a program is, as it printed."""
        found = re.search(rf"^{name} +(http://\S+)/$", self.output, re.MULTILINE)
        assert found is not None, f"no word of where {name} is:\n{self.output}"
        return found[1]

    def spans(self) -> list[str]:
        """Return a line for each span that has arrived."""
        found = re.search(r"^spans +tail -f (.+)$", self.output, re.MULTILINE)
        assert found is not None, f"no word of where spans are:\n{self.output}"
        return [line.partition(" ")[2] for line in Path(found[1]).read_text().splitlines()]

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what Prometheus answers to a call of its API. Raises urllib.error.HTTPError for one that it refuses."""
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return json.loads(get(f"{self.url('prometheus')}/api/v1/{path}{query}"))["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that a query has now."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """Return the one value that a query has now, 0 where it has none."""
        series = self.query(expression)
        assert len(series) <= 1, f"{expression}: {series}"
        return float(series[0]["value"][1]) if series else 0.0

    def alert_states(self, name: str, queue: str) -> set[str]:
        """Return the states in which Prometheus has an alert of a queue: pending, firing."""
        alerts = self.ask("alerts")["alerts"]
        return {each["state"] for each in alerts if (each["labels"]["alertname"], each["labels"].get("queue")) == (name, queue)}

    def delivered(self, receiver: str, status: str, name: str, queue: str) -> bool:
        """Whether the receiver of notifications has printed one of this alert."""
        return f" {receiver} {status} {name} queue={queue}: " in self.output


def get(url: str) -> str:
    """Return what a page says. Raises urllib.error.HTTPError where that is an error."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def answers(url: str) -> bool:
    """Whether a page is there and no error."""
    try:
        get(url)
    except OSError:
        return False
    return True


def post(url: str, content: Any) -> int:
    """Post JSON and return the status, 200 or an error."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def descendants(pid: int) -> dict[int, str]:
    """Return the command line of each process that this one started, and they in turn, from /proc."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        stat = read_or_nothing(folder / "stat")
        if stat:
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found: dict[int, str] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        for child in [each for each, its in parents.items() if its == parent]:
            found[child] = read_or_nothing(Path("/proc") / str(child) / "cmdline").replace("\0", " ")
            waiting.append(child)
    return found


def is_alive(pid: int) -> bool:
    """Whether there is a process of that id that has not ended; one that nobody has asked about yet has."""
    stat = read_or_nothing(Path("/proc") / str(pid) / "stat")
    return bool(stat) and stat.rpartition(")")[2].split()[0] != "Z"


def read_or_nothing(path: Path) -> str:
    """Return a file's text, '' where it is gone meanwhile."""
    try:
        return path.read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
