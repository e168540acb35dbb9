"""The command line for tests: in this process, as a process without a terminal, and on a pseudo-terminal."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import redis

from eventq.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE = 20.0
HOSTILE = "\x1b[2J\x1b]0;title\x07 [bold red]x[/] \u202e\x9b31m\r\nlast"
SHOWN = r"\x1b[2J\x1b]0;title\x07 [bold red]x[/] \u202e\x9b31m\r\nlast"


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it said with --json."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """What a listing said with --json."""
        return [json.loads(line) for line in self.out.splitlines()]


class CommandLine:
    """Commands on one server, which is their default one."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __call__(self, *arguments: str) -> Ended:
        """Run a command in this process, in a thread: its loop is its own. Neither input nor output is a terminal."""
        return await asyncio.to_thread(self._run, arguments)

    def _run(self, arguments: tuple[str, ...]) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        environment = {"EVENTQ_URL": self.url}
        with (
            mock.patch.dict(os.environ, environment),
            mock.patch.object(sys, "argv", ["eventq", *arguments]),
            mock.patch.object(sys, "stdin", io.StringIO()),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = main()
        return Ended(code, out.getvalue(), err.getvalue())

    async def process(self, *arguments: str, **environment: str) -> Ended:
        """Run a command as a process without a terminal."""
        command = [sys.executable, "-m", "eventq", *arguments]
        ended = await asyncio.to_thread(
            subprocess.run,
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**os.environ, "EVENTQ_URL": self.url, **environment},
        )
        return Ended(ended.returncode, ended.stdout, ended.stderr)

    async def terminal(self, *arguments: str, answer: str = "", width: int = 160, out: Path | None = None) -> Ended:
        """Run a command on a pseudo-terminal and type the answer when it has asked; everything it wrote there is in `out`.

        out: a file that stdout goes to instead.
        """
        return await asyncio.to_thread(self._on_terminal, arguments, answer, width, out)

    def _on_terminal(self, arguments: tuple[str, ...], answer: str, width: int, out: Path | None) -> Ended:
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
        environment = {**os.environ, "EVENTQ_URL": self.url, "TERM": "xterm-256color"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):  # they would be believed more than the terminal
            environment.pop(name, None)
        command = [sys.executable, "-m", "eventq", *arguments]
        with contextlib.ExitStack() as files:
            stdout = files.enter_context(out.open("wb")) if out else follower
            process = subprocess.Popen(
                command, stdin=follower, stdout=stdout, stderr=follower, env=environment, start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )  # fmt: skip
        os.close(follower)
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        written = b""
        while more := _read(leader):
            written += more
            if answer and written.rstrip(b" ").endswith(b"]"):
                os.write(leader, answer.encode())
                answer = ""
        timer.cancel()
        os.close(leader)
        return Ended(process.wait(PATIENCE), written.decode(), "")


def _read(leader: int) -> bytes:
    """Return what is there, nothing when the other side is closed, which Linux tells as an error."""
    try:
        return os.read(leader, 65536)
    except OSError:
        return b""


def dump(client: redis.Redis, queue_name: str) -> dict[bytes, Any]:
    """Return all that is stored of a queue, by key."""
    # Not DUMP: its bytes say how a table happens to be laid out, and that changes while it is only read.
    readers: dict[bytes, Callable[[bytes], Any]] = {
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
        b"string": client.get,
    }
    found: dict[bytes, Any] = {}
    for key in client.scan_iter(match=f"*{{{queue_name}*", count=1000):
        kind: Any = client.type(key)
        found[key] = readers[kind](key)
    return found


def columns(text: str, head: str) -> dict[str, list[str]]:
    """Return the rows of a table printed without a terminal, by their first word."""
    lines = text.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith(head))
    return {line.split()[0]: line.split() for line in lines[at + 1 :] if line and not line.startswith(" ")}
