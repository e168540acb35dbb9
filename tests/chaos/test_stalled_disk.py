"""A disk on which fsync takes seconds, and a server that is killed meanwhile: what it had put off is lost, and told."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Queue, Worker

from ..conftest import skip_for
from .failovers import Producer, Reader, find_loss, nothing

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from ..conftest import MakeServer, WaitUntil

#: Seconds that a server with `appendfsync everysec` holds its writes back at most while an fsync is under way, as its manual says,
#: and how much later it may look.
WINDOW = 2.0 + 0.5


@contextmanager
def slow_fsync(pid: int, seconds: int, log: Path) -> Generator[None]:
    """Let every fsync of a process take so long. Ends by itself when the process does."""
    delay = f"inject=fsync,fdatasync:delay_enter={seconds * 1_000_000}"
    command = ["strace", "-f", "-p", str(pid), "-e", "trace=fsync,fdatasync", "-e", delay, "-o", str(log)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        said = strace.stderr.readline()
        try:
            if "attached" not in said:
                skip_for(f"no right to trace a process (strace: {said.strip()})")
            yield
        finally:
            strace.kill()


@pytest.mark.full
async def test_what_was_put_off_is_lost_and_told(
    make_server: MakeServer, queue_name: str, wait_until: WaitUntil, tmp_path: Path
) -> None:
    """Two seconds of acknowledged adds at most, and of the events exactly those that are undone are told."""
    if shutil.which("strace") is None:
        skip_for("no strace in PATH (Debian: apt-get install strace)")
    server = make_server("--appendonly", "yes", "--appendfsync", "everysec")
    async with Queue(queue_name, int, url=server.url) as queue, Reader(queue) as reader, Worker(queue, nothing, lease=3.0):
        with redis.Redis(port=server.port) as client:
            producer = Producer(queue, confirms=False)
            async with producer:
                await producer.more(100)
                looks: list[tuple[float, int]] = []

                def is_behind() -> bool:
                    looks.append((time.monotonic(), len(producer.acknowledged)))
                    rows: dict[str, Any] = client.info("persistence")
                    has_seen_enough = looks[-1][0] - looks[0][0] > 2 * WINDOW
                    return has_seen_enough and rows["aof_delayed_fsync"] > 0 and rows["aof_buffer_length"] > 50_000

                with slow_fsync(server.pid, 4, tmp_path / "strace"):
                    await wait_until(is_behind, 60, description="writes that are put off")
                    killed = time.monotonic()
                    await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
                await producer.more(100)
            loss = await find_loss(queue, reader, producer, wait_until)
    print(f"fsync takes 4 s, killed: {loss}")
    loss.assert_told(1)
    early = max(count for moment, count in looks if moment <= killed - WINDOW)
    assert loss.missing and not loss.missing & set(producer.acknowledged[:early])
