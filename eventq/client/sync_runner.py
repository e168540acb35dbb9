"""The sync runner: the same commands without a loop, for threads."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import RedisError, ResponseError

from eventq.client.faults import unavailable
from eventq.client.opening import open_sync
from eventq.client.recovery import LONGEST_PAUSE, Recovery
from eventq.client.runner import WRITER_LENGTH
from eventq.client.wire import hang_up, pack
from eventq.commands.core import Command
from eventq.errors import ConfigurationError, QueueUnavailable, ServerRefused
from eventq.ids import random_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.client.server import Server
    from eventq.client.wire import SyncConnection
    from eventq.commands.core import Steps, Verb

R = TypeVar("R")


class SyncRunner:
    """Runs commands on one blocking connection, one at a time, from any thread. As AsyncRunner otherwise.

    patience: counted from when a call is made, so the wait for its turn is part of it. `until` (monotonic) ends it sooner.
    """

    def __init__(
        self,
        server: Server,
        *,
        timeout: float = 5.0,
        patience: float = 10.0,
        longest_pause: float = LONGEST_PAUSE,
        client_name: str = "eventq",
    ) -> None:
        self._server = server
        self._timeout = timeout
        self._patience = patience
        self._longest_pause = longest_pause
        self._client_name = client_name
        self._is_closed = False
        #: How often it has connected: a reader looks whether it still talks to the server it knew.
        self.connects = 0
        self.begin()

    def begin(self) -> None:
        """Begin with no connection, no writer and no call in flight: at first, and in a forked child."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        if self._is_closed:
            self._stopped.set()
        self._pid = -1
        self._writer, self._number = "", 0
        #: The connection that can be used, and the one whose reply is to come.
        self._connection: SyncConnection | None = None
        self._busy: SyncConnection | None = None
        self._node = ""
        self._ending: weakref.finalize[[], SyncRunner] | None = None
        #: What the last call came to, when nobody answered it.
        self._fault: BaseException | None = None

    def run(self, command: Command[R], *, until: float = inf) -> R:
        """Send a script call and return its parsed reply. One round trip; a lost reply is asked for again by number."""
        until = min(until, monotonic() + self._patience)
        with self._lock:
            self._own()
            if command.numbered:
                self._number += 1
            words = command.words(self._writer, self._number)
            reply = self._persist(f"script {command.script.name}", words, command.script.text, until)
        return command.read(reply)

    def run_verb(self, verb: Verb[R], *, block: float = 0.0, until: float = inf) -> R:
        """Send one plain Redis command; `block` is how long the server itself may hold the reply back (seconds)."""
        until = min(until, monotonic() + self._patience)
        with self._lock:
            self._own()
            return verb.read(self._persist(str(verb.words[0]), verb.words, None, until, block))

    def perform(self, steps: Steps[R], *, until: float = inf) -> R:
        """Send the calls of an operation, one after the other; return what it comes to. Raises what a call or a check raises."""
        try:
            call = next(steps)
            while True:
                reply = self.run(call, until=until) if isinstance(call, Command) else self.run_verb(call, until=until)
                call = steps.send(reply)
        except StopIteration as done:
            return cast("R", done.value)

    def stop(self) -> None:
        """End what is waited for: a call in flight raises QueueUnavailable now, a later one ConfigurationError. In any thread."""
        self._is_closed = True
        self._stopped.set()
        if self._pid == os.getpid() and (connection := self._busy) is not None:
            hang_up(connection)

    def close(self) -> None:
        """Close the connection; a call in flight ends with an error, a later one too."""
        self.stop()
        with self._lock:
            self._drop()

    def _own(self) -> None:
        if self._pid != os.getpid():
            self._connection, self._pid = None, os.getpid()
            self._writer, self._number = random_text(WRITER_LENGTH), 0
        if self._is_closed:
            raise ConfigurationError("this object is closed; make a new one")

    def _persist(self, what: str, words: Sequence[str | int], script: str | None, until: float, block: float = 0.0) -> Any:
        left = until - monotonic()
        if left <= 0 and self._fault is not None:
            # Its patience went by while it waited behind a call that nobody answered: whoever queues up learns it together.
            raise unavailable(what, self._server.asked, self._patience, self._fault) from self._fault
        recovery = Recovery(
            self._server,
            what,
            is_script=script is not None,
            patience=max(0.0, left),
            longest_pause=self._longest_pause,
            tried=self._node,
        )
        while True:
            try:
                recovery.is_sent = False
                connection = self._connection or self._connect(recovery)
                if recovery.load and script is not None:
                    self._exchange(connection, ["SCRIPT", "LOAD", script])
                    recovery.load = False
                recovery.is_sent = True
                reply = self._exchange(connection, words, block)
            except (RedisError, OSError) as fault:
                self._stopped.wait(self._after(fault, recovery))
            else:
                self._fault = None
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
        finally:
            if recovery.drop:
                self._drop()

    def _exchange(self, connection: SyncConnection, words: Sequence[str | int], block: float = 0.0) -> Any:
        # It comes back when its reply is read: whatever strikes in between (Ctrl-C may at any moment), the next call does not
        # find it, and so is never answered by what is still to come.
        self._connection, self._busy = None, connection
        try:
            # As text: hiredis 3.5 ends the process when a signal handler raises while it makes text of a number.
            connection.send_packed_command([pack([str(word) for word in words])], check_health=False)
            if block and not connection.can_read(self._timeout + block):
                connection.disconnect()
                raise TimeoutError(f"no reply within {self._timeout + block:g} seconds")
            reply = connection.read_response()
        except ResponseError:  # a reply, too
            self._connection = connection
            raise
        finally:
            self._busy = None
        self._connection = connection
        return reply

    def _connect(self, recovery: Recovery) -> SyncConnection:
        self._node = recovery.tried = recovery.node or self._server.next_node()
        connection = open_sync(self._server, self._client_name, self._timeout, self._node)
        if self._is_closed:
            connection.disconnect()
            raise ConfigurationError("this object was closed meanwhile")
        self._connection = connection
        self.connects += 1
        # Who never closes it, as a module's own queue, is spared a warning: at the interpreter's end objects go in any order.
        self._ending = weakref.finalize(self, connection.disconnect)
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if self._ending is not None:
            self._ending.detach()
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
