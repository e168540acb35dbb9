"""`eventq dev`: a worker on an embedded server, started again whenever a Python file changes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from eventq.cli.runtime import USAGE
from eventq.cli.text import plain
from eventq.cli.work import LIFELINE
from eventq.embedded import start_embedded

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

__all__ = ["develop"]

#: Seconds between two looks at the files.
LOOK_EVERY: Final = 0.5
#: Seconds a worker gets to finish its jobs until it is asked again (it then gives them back), then until it is killed.
PATIENCE: Final = 5.0
_INSISTENCE: Final = (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL)
_SKIPPED: Final = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "venv"})


def develop(target: str, path: Path | None, options: list[str]) -> None:
    """Serve until SIGTERM or Ctrl-C. The server lives as long as this process, its data in `path` longer."""
    directory = Path(os.path.abspath(path or ".eventq"))
    url = "embedded://" + quote(str(directory))
    start_embedded(url)
    if path is None:
        _keep_out_of_git(directory)
    _tell(f"server: {url}")
    _tell(f"clients: EVENTQ_URL={url}")
    stopping = threading.Event()
    worker = _Worker(target, url, options)
    with _signals(stopping, worker):
        try:
            _serve(worker, stopping)
        finally:
            worker.stop()


def _serve(worker: _Worker, stopping: threading.Event) -> None:
    seen = _snapshot(Path.cwd())
    worker.start()
    while not stopping.wait(LOOK_EVERY):
        now = _snapshot(Path.cwd())
        changed = sorted(str(name) for name, _ in now.items() ^ seen.items())
        seen = now
        if changed:
            _tell(f"changed: {', '.join(dict.fromkeys(changed[:5]))}; starting again")
            worker.stop()
            worker.start()
        elif (code := worker.has_ended()) is not None:
            hint = "the message above says why; " if code == USAGE else ""
            _tell(f"the worker ended with exit code {code}; {hint}it starts again when a file changes")


@contextlib.contextmanager
def _signals(stopping: threading.Event, worker: _Worker) -> Generator[None]:
    """Let SIGTERM and SIGINT end the loop."""

    def stop(number: int, frame: FrameType | None) -> None:
        # Ctrl-C goes to everybody in the foreground: asking the worker again would skip its grace.
        worker.is_asked = number == signal.SIGINT and _is_foreground()
        stopping.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_foreground() -> bool:
    with contextlib.suppress(OSError):  # there may be no terminal
        return os.tcgetpgrp(0) == os.getpgrp()
    return False


class _Worker:
    """The child process that works."""

    def __init__(self, target: str, url: str, options: list[str]) -> None:
        self._command = [sys.executable, "-m", "eventq", "worker", target, *options]
        self._environment = os.environ | {"EVENTQ_URL": url}
        # Its end closes with this process however that ends, and the worker notices.
        self._lifeline, self._held = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        #: Whether it has been told to end already, by somebody else.
        self.is_asked = False

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, env=self._environment | {LIFELINE: str(self._lifeline)}, pass_fds=[self._lifeline]
        )

    def has_ended(self) -> int | None:
        """Return the exit code of a worker that ended by itself, once."""
        if self._process is None or self._process.poll() is None:
            return None
        process, self._process = self._process, None
        return process.returncode

    def stop(self) -> None:
        """Ask it to end, twice, and kill it then; returns when it is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        for number in (None, *_INSISTENCE) if self.is_asked else _INSISTENCE:
            if number is not None:
                process.send_signal(number)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                continue
            return
        process.wait()


def _snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Return when each Python file under the folder was changed, and its size. No hidden or installed folders."""
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _SKIPPED]
        for name in files:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                try:
                    status = os.stat(path)
                except OSError:  # it went away between the two looks
                    continue
                found[os.path.relpath(path, root)] = (status.st_mtime_ns, status.st_size)
    return found


def _keep_out_of_git(directory: Path) -> None:
    ignore = directory / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")


def _tell(message: str) -> None:
    print(f"eventq dev: {plain(message)}", flush=True)
