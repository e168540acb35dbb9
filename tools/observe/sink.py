"""Receives what Alertmanager delivers, prints it, and raises the alarm itself when the watchdog falls silent.

Stands where a pager, a ticket system and a dead man's switch stand in earnest: `python -m tools.observe.sink`.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import FrameType

__all__ = ["Watchdog", "lines_of", "main", "say"]

#: Where alertmanager.yml sends the watchdog; what comes anywhere else is printed.
WATCHDOG: Final = "/watchdog"
#: Seconds between two looks at the time.
LOOK_EVERY: Final = 0.5
#: Labels that the line shows by itself, or that say nothing of where.
_NOT_SHOWN: Final = frozenset({"alertname", "severity", "job"})


@dataclass(slots=True)
class Watchdog:
    """A dead man's switch: told each time the watchdog is heard. Before it was heard once it waits."""

    patience: float
    heard: float | None = None
    is_silent: bool = False

    def hear(self, now: float) -> str | None:
        """Note that it was heard; returns what there is to say about that."""
        news = "the watchdog is heard: alerts are delivered" if self.heard is None or self.is_silent else None
        self.heard, self.is_silent = now, False
        return news

    def look(self, now: float) -> str | None:
        """Return what there is to say now: once, that it fell silent."""
        if self.heard is None or self.is_silent or now - self.heard <= self.patience:
            return None
        self.is_silent = True
        return f"the watchdog has been silent for {self.patience:g} s: alerts are not delivered"


def lines_of(notification: Mapping[str, Any]) -> list[str]:
    """Return a line for each alert of what Alertmanager posts: receiver, status, name, where, what."""
    lines: list[str] = []
    for alert in notification["alerts"]:
        labels, notes = alert["labels"], alert["annotations"]
        where = " ".join(f"{name}={value}" for name, value in sorted(labels.items()) if name not in _NOT_SHOWN)
        told = notes.get("description") or notes.get("summary", "")
        parts = (notification["receiver"], alert["status"], labels["alertname"], where)
        lines.append(f"{' '.join(part for part in parts if part)}: {told}")
    return lines


def say(line: str) -> None:
    """Print a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


class _Server(HTTPServer):
    """Has the watchdog, which its handlers tell."""

    def __init__(self, address: tuple[str, int], watchdog: Watchdog) -> None:
        super().__init__(address, _Handler)
        self.watchdog = watchdog


class _Handler(BaseHTTPRequestHandler):
    """Answers Alertmanager, and GET for health checks."""

    timeout = 5  # one that connects and says nothing would keep everybody waiting

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            lines = lines_of(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            say(f"not a notification of Alertmanager: {error!r}")
            self._answer(400)
            return
        self._answer(200)
        if self.path == WATCHDOG and isinstance(self.server, _Server):
            lines = [news] if (news := self.server.watchdog.hear(time.monotonic())) else []
        for line in lines:
            say(line)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of single requests."""

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


def main(arguments: Sequence[str] | None = None) -> None:
    """Receive until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="sink", description="Print the alerts that Alertmanager delivers.")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    parser.add_argument("--port", type=int, default=9095, help="(9095)")
    parser.add_argument(
        "--silence", type=float, default=180.0, metavar="SECONDS", help="after which the watchdog is missed (180)"
    )
    options = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    watchdog = Watchdog(options.silence)
    with _Server((options.host, options.port), watchdog) as server:
        server.timeout = LOOK_EVERY
        while True:
            server.handle_request()
            if news := watchdog.look(time.monotonic()):
                say(news)


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
