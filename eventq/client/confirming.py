"""Runners that have every script call confirmed on the connection that wrote it, before anybody learns of its reply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from redis.exceptions import ResponseError

from eventq.client.faults import Remedy, refusal, remedy_of
from eventq.client.runner import AsyncRunner
from eventq.client.sync_runner import SyncRunner
from eventq.errors import EventqError, QueueUnavailable, ScriptError, ServerRefused
from eventq.operations.confirming import examine, unexamined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.client.server import Server
    from eventq.client.wire import AsyncConnection, SyncConnection
    from eventq.commands.confirm import Confirmation
    from eventq.commands.core import Steps, Verb

#: What is answered again however often one asks. A call whose confirmation is refused has been done all the same.
_FINAL: Final = (Remedy.RAISE, Remedy.FORBIDDEN, Remedy.REFUSED)


class ConfirmingRunner(AsyncRunner):
    """As AsyncRunner; the answer of WAIT or WAITAOF stands behind each script's reply, an error that it answered too.

    Both are one exchange: where either reply is lost, both commands are sent again, on the connection that is then in use. So no
    connection is ever asked to confirm what another one wrote. Of each connection it is asked first whether its server can
    confirm this level; for one that cannot, a call raises ConfigurationError and is not sent.
    """

    def __init__(self, server: Server, confirmation: Confirmation, *, patience: float, client_name: str) -> None:
        super().__init__(server, patience=patience, client_name=client_name)
        self._confirmation = confirmation
        self._examined = 0
        #: The call that was sent last.
        self._called: object = None

    async def _exchange(self, connection: AsyncConnection, words: list[str | int], timeout: float) -> Any:
        if words[0] != "EVALSHA":
            return await super()._exchange(connection, words, timeout)
        if self._examined != self.connects:
            try:
                await self._examine(connection)
            except EventqError as error:
                raise _not_sent(error, self._server.where, is_repeated=words is self._called) from error
            self._examined = self.connects
        self._called = words
        reply = await super()._exchange(connection, words, timeout)
        if _is_done(reply):
            reply.append(await self._confirmed(connection))
        return reply

    async def _examine(self, connection: AsyncConnection) -> None:
        steps = examine(self._confirmation.level, self._server.where)
        reply: Any = None
        while (verb := _following(steps, reply)) is not None:
            try:
                reply = verb.read(await super()._exchange(connection, list(verb.words), self._timeout))
            except ResponseError as error:
                raise _told(error, str(verb.words[0])) from error

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
        self._called: object = None

    def _exchange(self, connection: SyncConnection, words: Sequence[str | int], block: float = 0.0) -> Any:
        if words[0] != "EVALSHA":
            return super()._exchange(connection, words, block)
        if self._examined != self.connects:
            try:
                self._examine(connection)
            except EventqError as error:
                raise _not_sent(error, self._server.where, is_repeated=words is self._called) from error
            self._examined = self.connects
        self._called = words
        reply = super()._exchange(connection, words, block)
        if _is_done(reply):
            reply.append(self._confirmed(connection))
        return reply

    def _examine(self, connection: SyncConnection) -> None:
        steps = examine(self._confirmation.level, self._server.where)
        reply: Any = None
        while (verb := _following(steps, reply)) is not None:
            try:
                reply = verb.read(super()._exchange(connection, verb.words))
            except ResponseError as error:
                raise _told(error, str(verb.words[0])) from error

    def _confirmed(self, connection: SyncConnection) -> Any:
        confirmation = self._confirmation
        try:
            return super()._exchange(connection, confirmation.words, confirmation.seconds)
        except ResponseError as error:
            return _answer(error)


def _is_done(reply: Any) -> bool:
    """Whether a script has done what was asked; what it refused was not written, and needs no confirmation."""
    return isinstance(reply, list) and reply[:1] == ["OK"]


def _following(steps: Steps[None], reply: Any) -> Verb[Any] | None:
    """Return what is to be asked next, None at the end."""
    try:
        return cast("Verb[Any]", steps.send(reply))
    except StopIteration:
        return None


def _told(error: ResponseError, what: str) -> Exception:
    """Return our error for a question that is refused for good; what may be answered on another try stays the driver's."""
    return refusal(error, what) if remedy_of(error) in _FINAL else error


def _not_sent(error: EventqError, where: str, *, is_repeated: bool) -> EventqError:
    """Return what the caller is told of a server that cannot confirm, or does not say whether it can."""
    if isinstance(error, ServerRefused | ScriptError):
        error = unexamined(where, error)
    if is_repeated:  # on another connection, whose answer was lost
        return QueueUnavailable(f"an add was sent, its answer was lost, and whether it took effect is unknown; now {error}")
    return error


def _answer(error: ResponseError) -> ResponseError:
    """Return a refusal to confirm; raise what a repetition on another connection may mend, as after a failover."""
    if remedy_of(error) in _FINAL:
        return error
    raise error
