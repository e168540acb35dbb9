"""A process that has imported everything and forks workers when it is told how many: so many cost little, and none loads the machine.

Arguments: those of the worker program. Reads numbers, one a line; prints `forked PID PID ...`, and each worker `started`.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from tests.chaos.programs.worker import main

_PR_SET_PDEATHSIG = 1


def fork() -> int:
    """Return the process id of a new worker."""
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(
        _PR_SET_PDEATHSIG, signal.SIGKILL
    )  # whoever waits for the end of the output waits for all who hold it
    try:
        asyncio.run(main())
    finally:
        os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead need nobody to bury them
    for line in sys.stdin:
        pids = [str(fork()) for _ in range(int(line))]
        os.write(1, f"forked {' '.join(pids)}\n".encode())  # at once, as others write there, too
