"""Conditions in which a server answers with an error of a certain code: entered, it does; left, all is well again.

Each takes a server that has an administrator, and `make_server`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .recorder import PATIENCE

if TYPE_CHECKING:
    from ..conftest import MakeServer
    from ..servers import TestServer

ADMIN = ("admin", "admin-password")
#: What a server is started with, to have one.
ADMINISTERED = ("--user", ADMIN[0], "on", f">{ADMIN[1]}", "~*", "&*", "+@all")
#: What a server is started with, to load slowly.
SLOW_TO_LOAD = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
NOBODY = 1  # a port on which no server listens

Condition = Callable[["TestServer", "MakeServer"], AbstractAsyncContextManager[None]]


def admin(server: TestServer) -> redis.Redis:
    """Return a client that is not ours, and is let in whatever the condition."""
    user, password = ADMIN
    return redis.Redis(host="127.0.0.1", port=server.port, username=user, password=password, retry=Retry(NoBackoff(), 0))


async def until_it_answers(server: TestServer, code: str) -> None:
    """Wait until the server answers reads or writes with an error of this code."""
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(f"AUTH {' '.join(ADMIN)}\r\nLLEN other\r\nDEL other\r\n".encode())
                answers = [await reader.readline() for _ in range(3)]
                writer.close()
                if any(answer.startswith(f"-{code} ".encode()) for answer in answers):
                    return
            await asyncio.sleep(0.01)  # sleep-ok: polling a server that changes its mind


@asynccontextmanager
async def loading(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
    """Restart with so much data that loading it takes a second: a server setting makes every key take its time."""
    with admin(server) as client, client.pipeline(transaction=False) as pipeline:
        for number in range(600):
            pipeline.set(f"ballast:{number}", "x" * 100)
        pipeline.execute()
        client.shutdown(save=True)
    server.stop()
    starting = asyncio.create_task(asyncio.to_thread(server.start))
    try:
        await until_it_answers(server, "LOADING")
        yield
    finally:
        await starting


@asynccontextmanager
async def busy(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
    """Somebody's script does not end, until it is killed."""
    with admin(server) as client, admin(server) as killer:
        client.config_set("busy-reply-threshold", 20)
        endless = asyncio.create_task(asyncio.to_thread(client.eval, "while true do end", 0))
        try:
            await until_it_answers(server, "BUSY")
            yield
        finally:
            killer.script_kill()
            with pytest.raises(redis.ResponseError):
                await endless


@asynccontextmanager
async def read_only(server: TestServer, make_server: MakeServer) -> AsyncGenerator[None]:
    """Another server takes over, loses nothing, and hands back."""
    other = make_server()
    with admin(server) as client, redis.Redis(host="127.0.0.1", port=other.port) as other_client:
        client.config_set("repl-diskless-sync-delay", 0)
        other_client.replicaof("127.0.0.1", server.port)
        await fails_over(client, other_client, other.port)
        yield
        await fails_over(other_client, client, server.port)


async def fails_over(primary: Any, replica: Any, replica_port: int) -> None:
    """Let a replica that has caught up become the primary, and the primary its replica."""
    async with asyncio.timeout(2 * PATIENCE):
        while replica.info("replication").get("master_link_status") != "up":
            await asyncio.sleep(0.01)  # sleep-ok: polling a server
        while True:
            with contextlib.suppress(redis.ResponseError):  # FAILOVER replica is not online: not yet
                primary.execute_command("FAILOVER", "TO", "127.0.0.1", replica_port)
                break
            await asyncio.sleep(0.01)  # sleep-ok: polling a server
        while replica.info("replication")["role"] != "master":
            await asyncio.sleep(0.01)  # sleep-ok: polling a server


@asynccontextmanager
async def without_primary(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
    """A replica that has lost its primary and is told not to serve what it has."""
    with admin(server) as client:
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", NOBODY)
        await until_it_answers(server, "MASTERDOWN")
        yield
        client.replicaof("NO", "ONE")


@asynccontextmanager
async def unable_to_save(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
    """Saving to disk fails, here because a directory is in the way, and the server is told to take no writes then."""
    in_the_way = server.directory / "dump.rdb"
    in_the_way.mkdir()
    (in_the_way / "file").touch()
    with admin(server) as client:
        client.config_set("save", "3600 100000")
        client.bgsave()
        await until_it_answers(server, "MISCONF")
        yield
        (in_the_way / "file").unlink()
        in_the_way.rmdir()
        client.bgsave()
        async with asyncio.timeout(PATIENCE):
            while client.info("persistence")["rdb_last_bgsave_status"] != "ok":
                await asyncio.sleep(0.01)  # sleep-ok: polling a server


def setting(name: str, value: str, back: str) -> Condition:
    """Return the condition of one server setting."""

    @asynccontextmanager
    async def condition(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
        with admin(server) as client:
            client.config_set(name, value)
            yield
            client.config_set(name, back)

    return condition


def login(password: str, back: str) -> Condition:
    """Return the condition of a password that was changed while everybody had to connect again."""

    @asynccontextmanager
    async def condition(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
        with admin(server) as client:
            client.config_set("requirepass", password)
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            yield
            client.config_set("requirepass", back)

    return condition


def permission(*taken: str, given: tuple[str, ...]) -> Condition:
    """Return the condition of a permission that was taken away."""

    @asynccontextmanager
    async def condition(server: TestServer, _: MakeServer) -> AsyncGenerator[None]:
        with admin(server) as client:
            client.execute_command("ACL", "SETUSER", "default", *taken)
            yield
            client.execute_command("ACL", "SETUSER", "default", *given)

    return condition
