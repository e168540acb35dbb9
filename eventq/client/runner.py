"""The async runner: one connection, one writer, one call in flight; repeats a numbered call until its reply is known."""

from __future__ import annotations

import asyncio
import contextlib
import os
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from redis.exceptions import RedisError

from eventq.client.clock import boot_time
from eventq.client.faults import unavailable
from eventq.client.opening import open_async
from eventq.client.recovery import LONGEST_PAUSE, Recovery
from eventq.client.wire import pack
from eventq.commands.core import Command
from eventq.errors import ConfigurationError, QueueUnavailable, ServerRefused
from eventq.ids import random_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventq.client.server import Server
    from eventq.client.wire import AsyncConnection
    from eventq.commands.core import Steps, Verb

R = TypeVar("R")
#: Connections of the process this one was forked from. Even collecting one would close it, and with that take it out of the event
#: loop that both share.
_inherited: list[AsyncConnection] = []
_NO_ANSWER: Final = object()
WRITER_LENGTH = 12


class _Deadline:
    """Closes a connection that did not answer in time; its reader then ends with an error."""

    __slots__ = ("_connection", "task")

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.task: asyncio.Task[None] | None = None

    def __call__(self) -> None:
        self.task = asyncio.ensure_future(self._connection.disconnect(nowait=True))


class AsyncRunner:
    """Runs commands on one connection, one at a time.

    timeout: seconds one reply may take before the connection counts as dead and is replaced.
    patience: seconds a command may be repeated before QueueUnavailable, its wait for its turn included; None repeats until it is
    closed.
    longest_pause: seconds between two tries, at most. on_fault: told about each fault that is waited for, for error events, and
    now and then of a permission that is missing; without it, that is raised.

    Cancelling a caller drops the connection with its unread reply; a later call is never answered by it. After a fork the child
    opens a connection and takes a writer id of its own. Bound to the event loop of its first call.
    """

    def __init__(
        self,
        server: Server,
        *,
        timeout: float = 5.0,
        patience: float | None = 10.0,
        longest_pause: float = LONGEST_PAUSE,
        client_name: str = "eventq",
        on_fault: Callable[[Exception], None] | None = None,
    ) -> None:
        self._server = server
        self._timeout = timeout
        self._patience = patience
        self._longest_pause = longest_pause
        self._client_name = client_name
        self._on_fault = on_fault
        self._connection: AsyncConnection | None = None
        self._lock = asyncio.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._pid = -1
        self._writer = ""
        self._number = 0
        self._is_closed = False
        self._node = ""
        #: What the last call came to, when nobody answered it.
        self._fault: Exception | None = None
        #: Whether a call was ever answered.
        self._has_worked = False
        #: When (boot time) the last try was sent: what an answer says was true then or later.
        self.sent = 0.0
        #: How often it has connected: a reader looks whether it still talks to the server it knew.
        self.connects = 0

    async def run(self, command: Command[R]) -> R:
        """Send a script call and return its parsed reply. One round trip; a lost reply is asked for again by number."""
        self.bind()
        began = monotonic()
        async with self._lock:
            if command.numbered:
                self._number += 1
            words = command.words(self._writer, self._number)
            try:
                # The usual case, without a layer in between: there is a connection and it answers.
                connection = self._connection if self._fault is None else None
                reply = await self._exchange(connection, words, self._timeout) if connection else _NO_ANSWER
            except (RedisError, OSError) as error:
                reply = await self._persist(f"script {command.script.name}", words, command.script.text, error, began=began)
            if reply is _NO_ANSWER:
                reply = await self._persist(f"script {command.script.name}", words, command.script.text, began=began)
        return command.read(cast("list[Any]", reply))

    async def run_verb(self, verb: Verb[R], *, block: float = 0.0) -> R:
        """Send one plain Redis command; `block` is how long the server itself may hold the reply back (seconds)."""
        self.bind()
        began = monotonic()
        async with self._lock:
            reply = await self._persist(str(verb.words[0]), list(verb.words), timeout=self._timeout + block, began=began)
        return verb.read(reply)

    async def perform(self, steps: Steps[R]) -> R:
        """Send the calls of an operation, one after the other; return what it comes to. Raises what a call or a check raises."""
        try:
            call = next(steps)
            while True:
                call = steps.send(await (self.run(call) if isinstance(call, Command) else self.run_verb(call)))
        except StopIteration as done:
            return cast("R", done.value)

    async def close(self) -> None:
        """Close the connection; a call in flight ends with an error, a later one too."""
        self._is_closed = True
        await self._drop()

    def bind(self) -> None:
        """Bind to this process and loop; new writer id after a fork. Raises ConfigurationError elsewhere, or once closed."""
        loop = asyncio.get_running_loop()
        if self._pid != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            self._connection, self._pid, self.loop, self._lock = None, os.getpid(), loop, asyncio.Lock()
            self._writer, self._number = random_text(WRITER_LENGTH), 0
        elif self.loop is not loop:
            raise ConfigurationError(
                "this object was first used in another event loop; make one per loop (a second asyncio.run() is another loop)"
            )
        if self._is_closed:
            raise ConfigurationError("this object is closed; make a new one")

    async def _persist(
        self,
        what: str,
        words: list[str | int],
        script: str | None = None,
        error: Exception | None = None,
        *,
        timeout: float | None = None,
        began: float,
    ) -> Any:
        """Send until there is an answer, or patience ends. `error`: what a first try came to; `began`: when it was asked for."""
        if self._fault is not None and self._patience is not None and monotonic() - began >= self._patience:
            # Its patience went by while it waited behind a call that nobody answered: whoever queues up learns it together.
            raise unavailable(what, self._server.asked, self._patience, self._fault) from self._fault
        recovery = Recovery(
            self._server,
            what,
            is_script=script is not None,
            patience=self._patience,
            longest_pause=self._longest_pause,
            tried=self._node,
            began=began,
            # Whom nobody hears is not to wait in silence: its caller is told.
            has_worked=self._has_worked and self._on_fault is not None,
        )
        while True:
            try:
                recovery.is_sent = error is not None
                if error is not None:
                    first, error = error, None
                    raise first
                connection = self._connection or await self._connect(recovery)
                if recovery.load and script is not None:
                    await self._exchange(connection, ["SCRIPT", "LOAD", script], self._timeout)
                    recovery.load = False
                recovery.is_sent = True
                reply = await self._exchange(connection, words, timeout or self._timeout)
            except (RedisError, OSError) as fault:
                pause = self._after(fault, recovery)
                if recovery.drop:
                    await self._drop()
                if pause:
                    if self._on_fault and recovery.is_news(fault):
                        self._on_fault(fault)
                    await asyncio.sleep(pause)
            else:
                self._fault, self._has_worked = None, True
                return reply

    def _after(self, fault: Exception, recovery: Recovery) -> float:
        """Return how long to wait before the next try. Raises when there is to be none."""
        try:
            return recovery.after(fault, is_closed=self._is_closed)
        except QueueUnavailable:
            self._fault = fault
            raise
        except ServerRefused as refused:
            if refused.code == "WRONGTYPE":  # of a new writer's first call every key is looked at, before it writes
                self._writer, self._number = random_text(WRITER_LENGTH), 0
            raise

    async def _exchange(self, connection: AsyncConnection, words: list[str | int], timeout: float) -> Any:
        # A timer that closes the connection: half of what asyncio.timeout costs, for every call.
        expired = _Deadline(connection)
        timer = asyncio.get_running_loop().call_later(timeout, expired)
        self.sent = boot_time()
        try:
            await connection.send_packed_command(pack(words), check_health=False)
            return await connection.read_response()
        except BaseException as error:
            if not connection.is_connected or connection is not self._connection:
                self._connection = None
            if expired.task is not None and isinstance(error, Exception):
                raise TimeoutError(f"no reply within {timeout:g} seconds") from error
            raise
        finally:
            timer.cancel()

    async def _connect(self, recovery: Recovery) -> AsyncConnection:
        if self._is_closed:
            raise ConfigurationError("this object was closed meanwhile")
        if recovery.node is not None:
            self._node = recovery.node
        elif self._server.may_start:
            self._node = await asyncio.to_thread(self._server.next_node)
        else:
            self._node = self._server.next_node()
        recovery.tried = self._node
        connection = await open_async(self._server, self._client_name, self._node)
        if self._is_closed:
            await connection.disconnect(nowait=True)
            raise ConfigurationError("this object was closed meanwhile")
        self._connection = connection
        self.connects += 1
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and self._pid != os.getpid():
            _inherited.append(connection)
        elif connection is not None:
            with contextlib.suppress(RedisError, OSError, RuntimeError):  # RuntimeError: its loop is closed
                await connection.disconnect(nowait=True)
