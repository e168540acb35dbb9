"""The process that all processes of a scene are forked from: it has imported everything, so that a dozen are up in a moment.

Orders come as lines of JSON on stdin: `["start", post…]` as for `Post`, or `["signal", pid, number]`. On stdout go lines of
a pid and what there is to tell: `up SEED` first, which says whose pid it is, `exit CODE` when it has ended (negative: by a
signal), and whatever the process itself says. When stdin ends, all that is left of them is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import resource
import select
import signal
import sys
import traceback
from typing import NoReturn

from .actors import ACTORS, Post, say

#: The kernel kills a process whose parent, this one, is gone.
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Start and signal processes as told, reap what ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash on purpose leaves no file
    gc.freeze()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    alive: set[int] = set()
    orders = b""
    while True:
        ready, _, _ = select.select([0, reading], [], [])
        if reading in ready:
            os.read(reading, 1024)
            reap(alive)
        if 0 in ready:
            if not (more := os.read(0, 65536)):
                break
            *lines, orders = (orders + more).split(b"\n")
            for line in lines:
                obey(json.loads(line), alive)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def obey(order: list[object], alive: set[int]) -> None:
    """Carry out one order. Only this process reaps, so a pid it knows to be alive is no stranger's."""
    match order:
        case ["start", *facts]:
            alive.add(start(Post(*facts)))  # type: ignore[arg-type]
        case ["signal", int(pid), int(number)]:
            if pid in alive:
                os.kill(pid, number)
        case _:
            raise ValueError(f"order {order!r}: not known")


def start(post: Post) -> int:
    """Fork a process that does what its post says."""
    parent = os.getpid()
    if pid := os.fork():
        return pid
    be(post, parent)


def be(post: Post, parent: int) -> NoReturn:
    """Do what the post says, and end."""
    code = 1
    try:
        say(f"up {post.seed}")
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before the kernel was told
            os._exit(code)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        asyncio.run(ACTORS[post.program](post))
        code = 0
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 0
    except BaseException as error:
        traceback.print_exc()
        say(f"failed {type(error).__name__}: {str(error)[:200]!r}")
    finally:
        sys.stderr.flush()
        os._exit(code)


def reap(alive: set[int]) -> None:
    """Tell of every process that has ended."""
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        alive.discard(pid)
        os.write(1, f"{pid} exit {os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    main()
