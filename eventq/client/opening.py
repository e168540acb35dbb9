"""Opening a connection: to a server, to the primary that Sentinels name, or to a node of a Cluster; checked before it is used.

Sentinels are asked as their documentation asks clients to (https://redis.io/docs/latest/develop/reference/sentinel-clients/): one
after the other for the primary's address at every connect, and the server named has to say itself that it is the primary.
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


async def open_async(server: Server, client_name: str, node: str | None = None) -> AsyncConnection:
    """Return a connection that is connected and checked. Raises what redis-py raises, or ConfigurationError."""
    if node is None and server.address.kind == "sentinel":
        node = await _primary_async(server, client_name)
    if server.may_start:
        connection = await asyncio.to_thread(server.async_connection, client_name)
    else:
        connection = server.async_connection(client_name, node)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()
            for question in _questions(server):
                await connection.send_packed_command(pack([question]), check_health=False)
                _answered(server, question, await connection.read_response())
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def open_sync(server: Server, client_name: str, timeout: float, node: str | None = None) -> SyncConnection:
    """Return a blocking connection that is connected and checked, as `open_async`."""
    if node is None and server.address.kind == "sentinel":
        node = _primary_sync(server, client_name)
    connection = server.sync_connection(client_name, timeout, node)
    try:
        connection.connect()
        for question in _questions(server):
            connection.send_packed_command([pack([question])], check_health=False)
            _answered(server, question, connection.read_response())
    except BaseException:
        connection.disconnect()
        raise
    return connection


def _questions(server: Server) -> list[str]:
    return ["INFO"] * (not server.is_checked) + ["ROLE"] * (server.address.kind == "sentinel")


def _answered(server: Server, question: str, answer: Any) -> None:
    if question == "INFO":
        server.check(answer)
    elif answer[0] != "master":
        raise DriverConnectionError(f"the Sentinels of {server.where} name a server that is not the primary")


async def _primary_async(server: Server, client_name: str) -> str:
    errors: list[str] = []
    for node in server.address.nodes:
        connection = server.async_connection(client_name, node)
        try:
            async with asyncio.timeout(_SENTINEL_TIMEOUT):
                await connection.connect()
                await connection.send_packed_command(_which(server), check_health=False)
                if answer := await connection.read_response():
                    return server.address.url_of(answer[0], int(answer[1]))
        except (RedisError, OSError) as error:
            errors.append(f"{type(error).__name__} {error}")
        finally:
            await connection.disconnect(nowait=True)
    raise _nobody_knows(server, errors)


def _primary_sync(server: Server, client_name: str) -> str:
    errors: list[str] = []
    for node in server.address.nodes:
        connection = server.sync_connection(client_name, _SENTINEL_TIMEOUT, node)
        try:
            connection.connect()
            connection.send_packed_command([_which(server)], check_health=False)
            if answer := connection.read_response():
                return server.address.url_of(answer[0], int(answer[1]))
        except (RedisError, OSError) as error:
            errors.append(f"{type(error).__name__} {error}")
        finally:
            connection.disconnect()
    raise _nobody_knows(server, errors)


def _which(server: Server) -> bytes:
    return pack(["SENTINEL", "GET-MASTER-ADDR-BY-NAME", server.address.service])


def _nobody_knows(server: Server, errors: list[str]) -> DriverConnectionError:
    what = f"; {', '.join(errors)}" if errors else ": check the service's name"
    return DriverConnectionError(f"no Sentinel of {server.where} knows a primary {server.address.service!r}{what}")
