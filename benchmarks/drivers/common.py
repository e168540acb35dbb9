"""What the Python drivers share: the settings the harness hands down, and the tick file."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

URL = os.environ["BENCH_URL"]
QUEUE = "bench"
PAYLOAD: dict[str, Any] = json.loads(os.environ["BENCH_PAYLOAD"])
CHUNK = int(os.environ["BENCH_CHUNK"])
T = TypeVar("T")


def open_ticks() -> int:
    """The file whose size is the number of jobs done: one appended byte costs about a microsecond."""
    return os.open(os.environ["BENCH_TICKS"], os.O_WRONLY | os.O_APPEND)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run on uvloop where it is installed, as a user who cares about speed would."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)


async def timed(add: Callable[[], Awaitable[None]], n: int) -> None:
    """Print how long adding `n` jobs took, as one line of JSON for the harness."""
    cpu, began = time.process_time(), time.perf_counter()
    await add()
    wall = time.perf_counter() - began
    print(json.dumps({"n": n, "wall": wall, "cpu": time.process_time() - cpu}), flush=True)
