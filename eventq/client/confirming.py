"""Runners that have every script call confirmed on the connection that wrote it, before anybody learns of its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ResponseError

from eventq.client.faults import Remedy, remedy_of
from eventq.client.runner import AsyncRunner
from eventq.client.sync_runner import SyncRunner
from eventq.errors import ScriptError, ServerRefused
from eventq.operations.confirming import examine, unexamined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.client.server import Server
    from eventq.client.wire import AsyncConnection, SyncConnection
    from eventq.commands.confirm import Confirmation
    from eventq.commands.core import Command

R = TypeVar("R")


class ConfirmingRunner(AsyncRunner):
    """As AsyncRunner; the answer of WAIT or WAITAOF stands behind each script's reply, an error that it answered too.

    Both are one exchange: where either reply is lost, both commands are sent again, on the connection that is then in use. So no
    connection is ever asked to confirm what another one wrote.
    """

    def __init__(self, server: Server, confirmation: Confirmation, *, patience: float, client_name: str) -> None:
        super().__init__(server, patience=patience, client_name=client_name)
        self._confirmation = confirmation
        self._examined = 0

    async def run(self, command: Command[R]) -> R:
        """As AsyncRunner.run. Raises ConfigurationError, with nothing sent, for a server that cannot confirm this level."""
        if not self._examined or self._examined != self.connects:
            try:
                await self.perform(examine(self._confirmation.level, self._server.where))
            except (ServerRefused, ScriptError) as error:
                if isinstance(error, ServerRefused) and error.code != "NOPERM":
                    raise
                raise unexamined(self._server.where, error) from error
            self._examined = self.connects
        return await super().run(command)

    async def _exchange(self, connection: AsyncConnection, words: list[str | int], timeout: float) -> Any:
        reply = await super()._exchange(connection, words, timeout)
        if words[0] == "EVALSHA":
            reply.append(await self._confirmed(connection))
        return reply

    async def _confirmed(self, connection: AsyncConnection) -> Any:
        confirmation = self._confirmation
        try:
            return await super()._exchange(connection, confirmation.words, self._timeout + confirmation.seconds)
        except ResponseError as error:
            return _answer(error)


class SyncConfirmingRunner(SyncRunner):
    """The same for threads."""

    def __init__(self, server: Server, confirmation: Confirmation, *, patience: float, client_name: str) -> None:
        super().__init__(server, patience=patience, client_name=client_name)
        self._confirmation = confirmation
        self._examined = 0

    def run(self, command: Command[R], *, until: float = float("inf")) -> R:
        """As SyncRunner.run. Raises ConfigurationError, with nothing sent, for a server that cannot confirm this level."""
        if not self._examined or self._examined != self.connects:
            try:
                self.perform(examine(self._confirmation.level, self._server.where), until=until)
            except (ServerRefused, ScriptError) as error:
                if isinstance(error, ServerRefused) and error.code != "NOPERM":
                    raise
                raise unexamined(self._server.where, error) from error
            self._examined = self.connects
        return super().run(command, until=until)

    def _exchange(self, connection: SyncConnection, words: Sequence[str | int], block: float = 0.0) -> Any:
        reply = super()._exchange(connection, words, block)
        if words[0] == "EVALSHA":
            reply.append(self._confirmed(connection))
        return reply

    def _confirmed(self, connection: SyncConnection) -> Any:
        confirmation = self._confirmation
        try:
            return super()._exchange(connection, confirmation.words, confirmation.seconds)
        except ResponseError as error:
            return _answer(error)


def _answer(error: ResponseError) -> ResponseError:
    """Return a refusal to confirm; raise what a repetition on another connection may mend, as after a failover."""
    if remedy_of(error) is Remedy.RAISE:
        return error
    raise error
