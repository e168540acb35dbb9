"""Child processes that end with us, and what /proc says of their processor time."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Self

PATIENCE = 8.0
#: Cores others may keep busy before a run counts as disturbed.
DISTURBED = 0.3
_HERTZ = os.sysconf("SC_CLK_TCK")


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only us and we end it by its pid."""

    def __init__(self, argv: Sequence[str], *, log: IO[bytes], cwd: Path, env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            argv,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def wait(self, timeout: float) -> None:
        """Wait until it ends by itself; raises subprocess.TimeoutExpired."""
        self._process.wait(timeout)

    def end(self) -> None:
        """Ask it to stop; when it does not within PATIENCE seconds, kill it."""
        if self.ended:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system seconds of one process and its threads so far, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _HERTZ


def machine_cpu_seconds() -> float:
    """Processor seconds the whole machine has used: what is not ours in a window is somebody else's load."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / _HERTZ


def own_cpu_seconds() -> float:
    """Processor seconds of this process, the harness."""
    times = os.times()
    return times.user + times.system


def wait_until_quiet(patience: float) -> None:
    """Return when the machine does next to nothing, or after `patience` seconds: it may be shared."""
    deadline = time.perf_counter() + patience
    while time.perf_counter() < deadline:
        used, began = machine_cpu_seconds(), time.perf_counter()
        time.sleep(0.5)
        if (machine_cpu_seconds() - used) / (time.perf_counter() - began) < DISTURBED:
            return
