"""Runs the blocks of one page, in order, in a folder of the page's own."""

import ast
import codeop
import configparser
import importlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from eventq.embedded import start_embedded
from eventq_prometheus.promql import unknown_names
from eventq_prometheus.rules import recorded_metrics

from .pages import PARSED, ROOT, Block, PageError, commands, pattern

KERNEL = Path(__file__).with_name("kernel.py")
MOST_SECONDS = 30.0
#: Commands of sh blocks that are not run here; what they name is looked up instead.
LOOKED_UP = ("make", "pip", "docker")


class PageRun:
    """One page's folder, environment and Python session. `async` nothing: blocks are run one after another."""

    def __init__(self, folder: Path, late: float = 3.0) -> None:
        self.folder = folder
        #: Seconds that listeners may print later than their block ends.
        self.late = late
        tools = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EVENTQ_", "PYT"))}
        self.env = kept | {
            "COLUMNS": "100",
            "EVENTQ_URL": f"embedded://{folder}/.eventq",
            "NO_COLOR": "1",
            "PATH": tools,
            "PYTEST_ADDOPTS": "-p no:asyncio -p no:valkey",  # ours, which readers have not installed
            "PYTHONUNBUFFERED": "1",
            "TZ": "UTC",
        }
        self.session: subprocess.Popen[str] | None = None
        self.files: dict[str, Block] = {}
        self.named = ""

    def run(self, block: Block) -> None:
        """Do what the block's language and mark say. Raises PageError or AssertionError."""
        if block.file:
            self._write(block)
        elif block.language == "console":
            for command, expected in commands(block):
                self._console(block, command, expected)
        elif block.language == "sh":
            for command, _ in commands(block):
                self._sh(block, command)
        elif block.mark == "example":
            self._example(block)
        elif block.language == "python":
            self._continue(block)
        if block.language in PARSED:
            check_text(block, self.folder)

    def _write(self, block: Block) -> None:
        if block.language == "python":
            compile(block.text, str(block), "exec")
        self.files[block.file] = block
        (self.folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / block.file).write_text(block.text)

    def _example(self, block: Block) -> None:
        program = self.folder / "example.py"
        program.write_text(block.text)
        done = subprocess.run(
            [sys.executable, "-W", "error", str(program)],
            capture_output=True, text=True, timeout=MOST_SECONDS, check=False, cwd=self.folder, env=self.env,
        )  # fmt: skip
        assert_output(str(block), block.output, done.stdout + done.stderr)
        assert done.stderr == "" and done.returncode == 0, f"{block} ended with {done.returncode}: {done.stderr}"

    def _continue(self, block: Block) -> None:
        self.named += block.text
        check_prompt(block)
        if self.session is None:
            with (self.folder / "stderr").open("w") as stderr:
                self.session = subprocess.Popen(
                    [sys.executable, "-W", "error", str(KERNEL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=stderr, text=True, cwd=self.folder, env=self.env,
                )  # fmt: skip
        assert self.session.stdin is not None and self.session.stdout is not None
        order = {
            "name": str(block),
            "code": "\n" * block.line + block.text,
            "pattern": pattern(block.output),
            "endless": block.mark == "endless",
            "late": self.late,
        }
        print(json.dumps(order), file=self.session.stdin, flush=True)
        answer = self.session.stdout.readline()
        assert answer, f"{block}: the session ended: {(self.folder / 'stderr').read_text()}"
        assert_output(str(block), block.output, json.loads(answer))

    def _console(self, block: Block, command: str, expected: str) -> None:
        self.named += command
        if self._exports(command):
            return
        where = f"{block}: $ {command}"
        before, stop, after = expected.partition("^C\n")
        output, status = self._interrupt(where, command, before) if stop else self._call(command)
        assert_output(where, before + after, output, is_console=True)
        assert status == 0, f"{where} ended with {status}"

    def _sh(self, block: Block, command: str) -> None:
        self.named += command
        if self._exports(command):
            return
        if command.split()[0] in LOOKED_UP:
            look_up(block, command)
            return
        output, status = self._call(command)
        assert status == 0, f"{block}: $ {command} ended with {status}: {output}"

    def _exports(self, command: str) -> bool:
        """Take `export NAME=value` into the page's environment."""
        found = re.fullmatch(r"export (\w+)=(.*)", command)
        if found:
            value = subprocess.check_output(["bash", "-c", f"printf %s {found[2]}"], text=True, cwd=self.folder, env=self.env)
            self.env[found[1]] = value
        return bool(found)

    def _call(self, command: str) -> tuple[str, int]:
        done = subprocess.run(
            ["bash", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=MOST_SECONDS, check=False, cwd=self.folder, env=self.env,
        )  # fmt: skip
        return done.stdout, done.returncode

    def _interrupt(self, where: str, command: str, expected: str) -> tuple[str, int]:
        """Run a command that does not end, press Ctrl-C once it has printed what it should; return all it printed, and its status."""
        running = subprocess.Popen(
            shlex.split(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=self.folder, env=self.env,
        )  # fmt: skip
        assert running.stdout is not None
        late = threading.Timer(MOST_SECONDS / 2, running.kill)
        late.start()
        printed = ""
        try:
            while not re.fullmatch(pattern(expected, is_console=True), printed):
                line = running.stdout.readline()
                assert line, f"{where} ended, or printed for {MOST_SECONDS / 2} s nothing but:\n{printed}"
                printed += line
            running.send_signal(signal.SIGINT)
            printed += running.stdout.read()
            return printed, running.wait()
        finally:
            late.cancel()
            running.kill()
            running.wait()
            running.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self.session is not None:
            assert self.session.stdin is not None and self.session.stdout is not None
            self.session.stdin.close()
            status = self.session.wait(MOST_SECONDS)
            self.session.stdout.close()
            if error is None:
                assert (said := (self.folder / "stderr").read_text()) == "" and status == 0, (
                    f"the session ended with {status}: {said}"
                )
        if error is None:
            unused = [str(block) for name, block in self.files.items() if not self._is_named(name, block)]
            assert [] == unused, "files that nothing on their page runs"

    def _is_named(self, name: str, block: Block) -> bool:
        """Whether a command or an import names the file; what is parsed has been checked without."""
        others = "".join(other.text for other in self.files.values() if other is not block)
        return block.language != "python" or re.search(rf"\b{re.escape(Path(name).stem)}\b", self.named + others) is not None


def assert_output(where: str, expected: str, printed: str, *, is_console: bool = False) -> None:
    """Fail where the output is not what the page says, showing both."""
    if not re.fullmatch(pattern(expected, is_console=is_console), printed):
        raise AssertionError(f"{where}: the page says\n{expected or '(nothing)'}\nand it prints\n{printed or '(nothing)'}")


def check_prompt(block: Block) -> None:
    """Fail where a prompt, which is given one line after the other, would not take the block: a blank line ends a function."""
    compiler = codeop.CommandCompiler()
    compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    typed: list[str] = []
    for line in [*block.text.splitlines(), ""]:
        typed.append(line)
        if compiler("\n".join(typed), str(block), "single") is not None:
            typed.clear()
    assert not "".join(typed), f"{block}: not complete at a prompt: {typed}"


def look_up(block: Block, command: str) -> None:
    """Check that what a command names is there: a make target, an extra of the package, a compose file."""
    words = shlex.split(command, comments=True)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words[1:] if "=" not in word} <= set(targets), f"{block}: {command}"
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for word in words[2:]:
            found = re.fullmatch(r"eventq(?:\[([\w,]+)\])?", word)
            assert found and set((found[1] or "cli").split(",")) <= set(extras), f"{block}: {command}"
    elif words[:2] == ["docker", "compose"]:
        assert (ROOT / "docker-compose.yml").exists(), f"{block}: {command}"
    else:
        raise PageError(f"{block}: {command}: nothing is known of it")


def check_text(block: Block, folder: Path) -> None:
    """Parse a block of a language that is not run. Raises what its parser raises."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "ini":
        configparser.ConfigParser(strict=False, interpolation=None).read_string(block.text)
    elif block.language == "yaml":
        yaml: Any = importlib.import_module("yaml")
        assert list(yaml.safe_load_all(block.text)), str(block)
    elif block.language == "dockerfile":
        known = {"FROM", "RUN", "COPY", "WORKDIR", "ENV", "USER", "CMD", "ENTRYPOINT", "STOPSIGNAL"}
        lines = block.text.replace("\\\n", "").splitlines()
        assert {line.split()[0] for line in lines if line and not line.startswith("#")} <= known, str(block)
    elif block.language == "promql":
        assert unknown_names(block.text, recorded_metrics()) == [], str(block)
    elif block.language == "conf":
        _set_on_a_server(block, folder)


def _set_on_a_server(block: Block, folder: Path) -> None:
    """Give a server of its own every setting of a configuration file."""
    server = start_embedded(f"embedded://{folder}/{Path(block.file).stem or 'conf'}")
    client: Any = redis.Redis.from_url(server.url)
    try:
        for line in block.text.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                client.config_set(words[0], " ".join(words[1:]))
    finally:
        client.close()
        server.stop()
