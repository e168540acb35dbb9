"""A link between two servers that can be cut: the bytes of either side go nowhere, and neither is told."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Link:
    """Listens on `port` of loopback and passes everything on, whatever it is, until it is cut."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._is_whole = True
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def cut(self) -> None:
        """Swallow everything from now on; connections stay, and new ones lead nowhere."""
        self._is_whole = False

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError):
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port)
            self._writers.append(upstream)
            await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._is_whole:
                writer.write(data)
                await writer.drain()
        writer.close()
