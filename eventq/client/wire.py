"""What eventq uses of a connection of redis-py, and how a command is packed. redis-py types little of it."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Protocol, cast

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class AsyncConnection(Protocol):
    """An async connection: commands out, replies in, in order."""

    @property
    def is_connected(self) -> bool:
        """Whether there is a socket."""
        ...

    async def connect(self) -> None:
        """Open the socket, authenticate, choose the database."""

    async def send_packed_command(self, command: bytes, check_health: bool = True) -> None:
        """Write one packed command."""

    async def read_response(self) -> Any:
        """Read one reply; an error reply is raised."""

    async def disconnect(self, nowait: bool = False) -> None:
        """Close the socket."""


class SyncConnection(Protocol):
    """The same, blocking."""

    def connect(self) -> None:
        """Open the socket, authenticate, choose the database."""

    def send_packed_command(self, command: Sequence[bytes], check_health: bool = True) -> None:
        """Write one packed command, given in pieces."""

    def read_response(self) -> Any:
        """Read one reply; an error reply is raised."""

    def can_read(self, timeout: float) -> bool:
        """Wait so many seconds at most for a reply to begin."""
        ...

    def disconnect(self) -> None:
        """Close the socket."""


#: In C: redis-py's own packing is a sixth of a busy worker's time.
_pack = cast("Callable[[tuple[str | int, ...]], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]


def pack(words: Sequence[str | int]) -> bytes:
    """Return a command as it goes over the wire."""
    return _pack(tuple(words))


def hang_up(connection: SyncConnection) -> None:
    """End a connection that another thread reads from: that one is told, and closes it."""
    raw: socket.socket | None = getattr(connection, "_sock", None)  # nothing of redis-py's own leaves it to the reader to close
    if raw is not None:
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown, which takes away what the reader is using.
            socket.socket.shutdown(raw, socket.SHUT_RDWR)
