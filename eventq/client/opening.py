"""Opening a connection: to a server, to the primary that Sentinels name, or to a node of a Cluster; checked before it is used.

Sentinels are asked as their documentation asks clients to (https://redis.io/docs/latest/develop/reference/sentinel-clients/): one
after the other for the primary's address at every connect, and the server named has to be there and to say itself that it is the
primary; else the next Sentinel may know better.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ConnectionError as DriverConnectionError
from redis.exceptions import RedisError

from eventq.client.server import CONNECT_TIMEOUT
from eventq.client.wire import pack

if TYPE_CHECKING:
    from eventq.client.server import Server
    from eventq.client.wire import AsyncConnection, SyncConnection

#: Seconds one Sentinel may take: another one knows as much.
_SENTINEL_TIMEOUT: Final = 1.0


async def open_async(server: Server, client_name: str, node: str) -> AsyncConnection:
    """Return a connection to this node that is connected and checked. Of Sentinels any will do: all are asked.

    Raises what redis-py raises, or ConfigurationError.
    """
    if server.address.kind != "sentinel":
        return await _open_async(server, client_name, node)
    errors: dict[str, str] = {}
    for sentinel in server.sentinels():
        where = ""
        try:
            where = await _primary_async(server, client_name, sentinel)
            if where not in errors:
                connection = await _open_async(server, client_name, where)
                server.trust(sentinel)
                return connection
        except (RedisError, OSError) as error:
            errors[where or sentinel] = f"{type(error).__name__} {error}"
    raise _nobody_knows(server, errors)


async def _open_async(server: Server, client_name: str, url: str) -> AsyncConnection:
    connection = server.async_connection(client_name, url)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()
            if _is_unknown(server):
                await connection.send_packed_command(pack(["INFO"]), check_health=False)
                _check(server, await connection.read_response())
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _primary_async(server: Server, client_name: str, sentinel: str) -> str:
    connection = server.async_connection(client_name, sentinel)
    try:
        async with asyncio.timeout(_SENTINEL_TIMEOUT):
            await connection.connect()
            await connection.send_packed_command(_which(server), check_health=False)
            return _named(server, await connection.read_response())
    finally:
        await connection.disconnect(nowait=True)


def open_sync(server: Server, client_name: str, timeout: float, node: str) -> SyncConnection:
    """Return a blocking connection that is connected and checked, as `open_async`."""
    if server.address.kind != "sentinel":
        return _open_sync(server, client_name, timeout, node)
    errors: dict[str, str] = {}
    for sentinel in server.sentinels():
        where = ""
        try:
            where = _primary_sync(server, client_name, sentinel)
            if where not in errors:
                connection = _open_sync(server, client_name, timeout, where)
                server.trust(sentinel)
                return connection
        except (RedisError, OSError) as error:
            errors[where or sentinel] = f"{type(error).__name__} {error}"
    raise _nobody_knows(server, errors)


def _open_sync(server: Server, client_name: str, timeout: float, url: str) -> SyncConnection:
    connection = server.sync_connection(client_name, timeout, url)
    try:
        connection.connect()
        if _is_unknown(server):
            connection.send_packed_command([pack(["INFO"])], check_health=False)
            _check(server, connection.read_response())
    except BaseException:
        connection.disconnect()
        raise
    return connection


def _primary_sync(server: Server, client_name: str, sentinel: str) -> str:
    connection = server.sync_connection(client_name, _SENTINEL_TIMEOUT, sentinel)
    try:
        connection.connect()
        connection.send_packed_command([_which(server)], check_health=False)
        return _named(server, connection.read_response())
    finally:
        connection.disconnect()


def _is_unknown(server: Server) -> bool:
    """Whether the server is to be asked what it is: once, and whoever Sentinels name each time."""
    return not server.is_checked or server.address.kind == "sentinel"


def _check(server: Server, info: str) -> None:
    if not server.is_checked:
        server.check(info)
    if server.address.kind == "sentinel" and "role:master" not in info.splitlines():
        raise DriverConnectionError("the server that a Sentinel named is not the primary")


def _which(server: Server) -> bytes:
    return pack(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", server.address.service])


def _named(server: Server, answer: Any) -> str:
    if not answer:
        raise DriverConnectionError(f"it knows no primary {server.address.service!r}")
    return server.address.url_of(answer[0], int(answer[1]))


def _nobody_knows(server: Server, errors: dict[str, str]) -> DriverConnectionError:
    return DriverConnectionError(
        f"no Sentinel of {server.where} knows a primary {server.address.service!r} that answers: {', '.join(errors.values())}"
    )
