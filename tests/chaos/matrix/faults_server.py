"""Faults of the server: killed, stopped, frozen, busy, full, forgetful, read only, with other users than a moment ago."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Queue
from eventq.errors import InvalidJob

from ..stored import key_of
from .faults_processes import OVERLAPS
from .kinds import KEEPS_ALL, Faults
from .scene import LEASE

if TYPE_CHECKING:
    from .scene import Scene

fault = Faults()


@fault(30, "the server stands still in a command", times=1, tolerates=OVERLAPS, halts=True)
async def server_sleeps(scene: Scene) -> None:
    await scene.ask("DEBUG", "SLEEP", f"{scene.chance.uniform(0.3, LEASE * 1.5):.2f}")


@fault(31, "writes held back", times=2, halts=True)
async def writes_paused(scene: Scene) -> None:
    await scene.ask("CLIENT", "PAUSE", "500", "WRITE")
    await scene.pause(0.5, 0.6)


@fault(32, "the server frozen for longer than a lease", times=1, tolerates=OVERLAPS, halts=True)
async def server_frozen(scene: Scene) -> None:
    scene.server.freeze()
    await scene.pause(LEASE * 1.2, LEASE * 1.5)
    scene.server.thaw()


@fault(33, "somebody else's script keeps the server busy", server=("--busy-reply-threshold", "200"), times=1, halts=True)
async def foreign_script(scene: Scene) -> None:
    script = asyncio.create_task(asyncio.to_thread(endless_script, scene))
    await scene.pause(0.6, 0.9)
    await asyncio.to_thread(kill_script, scene)
    await script


def endless_script(scene: Scene) -> None:
    """Run a script that ends only when it is killed, or its server is."""
    with contextlib.suppress(redis.RedisError), scene.client() as client:
        client.execute_command("EVAL", "while true do end", "0")


def kill_script(scene: Scene) -> None:
    """End it."""
    with contextlib.suppress(redis.RedisError), scene.client() as client:
        client.execute_command("SCRIPT", "KILL")


@fault(34, "scripts forgotten, again and again", times=1)
async def scripts_forgotten(scene: Scene) -> None:
    for _ in range(12):
        await scene.ask("SCRIPT", "FLUSH")
        await scene.pause(0.05, 0.15)


@fault(35, "the server killed, every write synced before", persistence=("always",), times=3, halts=True)
async def server_killed(scene: Scene) -> None:
    await asyncio.to_thread(scene.server.kill)
    await scene.pause(0, 0.5)
    await asyncio.to_thread(scene.server.start)


@fault(
    37,
    "the server killed, nothing kept but a snapshot, or nothing",
    persistence=("none", "snapshots"),
    times=1,
    lossy=True,
    stalls=True,
)
async def server_killed_without_log(scene: Scene) -> None:
    await scene.pause(0.3, 0.8)
    await asyncio.to_thread(scene.server.kill)
    await asyncio.to_thread(scene.server.start)


@fault(38, "the server killed, the end of its log cut off", persistence=("always",), times=1, lossy=True, stalls=True)
async def log_truncated(scene: Scene) -> None:
    await scene.pause(0.3, 0.8)
    await asyncio.to_thread(scene.server.kill)
    log = max((scene.server.directory / "appendonlydir").glob("*.incr.aof"))
    with log.open("r+b") as file:
        size = file.seek(0, 2)
        file.truncate(size - scene.chance.randint(1, min(size - 1, 20_000)))
    await asyncio.to_thread(scene.server.start)


@fault(39, "the server takes its time to load", persistence=KEEPS_ALL, times=1, halts=True)
async def server_loads(scene: Scene) -> None:
    await scene.ask("EVAL", "for i = 1, 3000 do redis.call('SET', 'ballast:' .. i, i) end", "0")
    await scene.ask("BGREWRITEAOF")
    while (await scene.ask("INFO", "persistence"))["aof_rewrite_in_progress"]:
        await scene.pause(0.02, 0.05)
    await asyncio.to_thread(scene.server.stop)
    args = scene.server.args
    scene.server.args = (*args, "--key-load-delay", "100")  # microseconds, per key and per command of the log
    try:
        await asyncio.to_thread(scene.server.start)
    finally:
        scene.server.args = args
    await scene.ask("EVAL", "for i = 1, 3000 do redis.call('DEL', 'ballast:' .. i) end", "0", timeout=30)


@fault(40, "the server shut down in order, without a last snapshot", persistence=KEEPS_ALL, times=2, halts=True)
async def server_shut_down(scene: Scene) -> None:
    with contextlib.suppress(redis.ConnectionError), scene.client() as client:
        client.execute_command("SHUTDOWN", "NOSAVE")
    await asyncio.to_thread(scene.server.stop)
    await scene.pause(0, 0.5)
    await asyncio.to_thread(scene.server.start)


@fault(44, "the server is a replica for a while", times=1, halts=True)
async def server_read_only(scene: Scene) -> None:
    await scene.ask("REPLICAOF", "127.0.0.1", "1")
    await scene.pause(0.5, 1.2)
    await scene.ask("REPLICAOF", "NO", "ONE")


@fault(47, "the server's memory is full", times=1, halts=True)
async def memory_full(scene: Scene) -> None:
    await scene.ask("CONFIG", "SET", "maxmemory", "1mb")
    await scene.pause(0.8, 1.2)
    await scene.ask("CONFIG", "SET", "maxmemory", "0")


@fault(48, "a policy that evicts queues", times=1)
async def eviction_policy(scene: Scene) -> None:
    """Whoever works goes on, as nothing is evicted yet; whoever starts refuses to."""
    await scene.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    newcomer = scene.start_worker()
    assert await newcomer.ended() != 0 and "ConfigurationError" in newcomer.failure, newcomer.said
    await scene.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


@fault(49, "the server's disk is full", persistence=("everysec",), small_disk=True, times=1, halts=True)
async def disk_full(scene: Scene) -> None:
    ballast = scene.server.directory / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    refused = len([line for actor in scene.crew.actors for line in actor.said if line.startswith("refused")])
    await scene.until(
        lambda: len([line for actor in scene.crew.actors for line in actor.said if line.startswith("refused")]) > refused,
        "an add that is refused",
        timeout=10,
    )
    await scene.pause(0.5, 1.0)
    ballast.unlink()


@fault(50, "everything deleted by hand", times=1, lossy=True, stalls=True)
async def everything_deleted(scene: Scene) -> None:
    await scene.pause(0.3, 0.8)
    await scene.ask("FLUSHALL")


@fault(51, "a permission taken away for a while", times=1, stalls=True, halts=True)
async def permission_taken(scene: Scene) -> None:
    await scene.ask("ACL", "SETUSER", "default", "-evalsha")
    await scene.pause(0.5, 1.0)
    await scene.ask("ACL", "SETUSER", "default", "+evalsha")


@fault(57, "the stream trimmed under a reader that is not there", times=1, trims=True)
async def stream_trimmed(scene: Scene) -> None:
    (reader,) = scene.crew.of("reader")
    reader.send(signal.SIGSTOP)
    await scene.pause(0.5, 1.0)
    await scene.ask("XTRIM", key_of(scene.queue, "events"), "MAXLEN", "3")
    reader.send(signal.SIGCONT)


@fault(62, "data that is too large, too deep, or no JSON at all", times=1)
async def bad_data(scene: Scene) -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    async with Queue(scene.queue, url=scene.direct_url) as queue:
        for data in ("x" * (5 * 2**20), "x" * (256 * 1024 - 1), "\ud800", deep, object(), float):
            with pytest.raises(InvalidJob):
                await queue.add("quick", data)
    await scene.add("quick")
