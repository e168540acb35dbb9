"""The sync runner: the same commands without a loop, for threads."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, TypeVar, cast

from redis.exceptions import RedisError

from eventq.client.opening import open_sync
from eventq.client.recovery import LONGEST_PAUSE, Recovery
from eventq.client.runner import WRITER_LENGTH
from eventq.client.wire import pack
from eventq.commands.core import Command
from eventq.ids import random_text

if TYPE_CHECKING:
    from eventq.client.server import Server
    from eventq.client.wire import SyncConnection
    from eventq.commands.core import Steps, Verb

R = TypeVar("R")


class SyncRunner:
    """Runs commands on one blocking connection, one at a time, from any thread. As AsyncRunner otherwise."""

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
        self._connection: SyncConnection | None = None
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pid = -1
        self._node = ""
        self._writer = ""
        self._number = 0

    def run(self, command: Command[R]) -> R:
        """Send a script call and return its parsed reply. One round trip; a lost reply is asked for again by number."""
        with self._lock:
            self._own()
            if command.numbered:
                self._number += 1
            words = command.words(self._writer, self._number)
            reply = self._persist(f"script {command.script.name}", words, command.script.text)
        return command.read(reply)

    def run_verb(self, verb: Verb[R]) -> R:
        """Send one plain Redis command."""
        with self._lock:
            self._own()
            return verb.parse(self._persist(str(verb.words[0]), list(verb.words), None))

    def perform(self, steps: Steps[R]) -> R:
        """Send the calls of an operation, one after the other; return what it comes to. Raises what a call or a check raises."""
        try:
            call = next(steps)
            while True:
                call = steps.send(self.run(call) if isinstance(call, Command) else self.run_verb(call))
        except StopIteration as done:
            return cast("R", done.value)

    def stop(self) -> None:
        """End what is repeated: a call that waits to be sent again raises QueueUnavailable now. Safe in another thread."""
        self._stopped.set()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _own(self) -> None:
        if self._pid != os.getpid():
            self._connection, self._pid = None, os.getpid()
            self._writer, self._number = random_text(WRITER_LENGTH), 0

    def _persist(self, what: str, words: list[str | int], script: str | None) -> Any:
        recovery = Recovery(
            self._server,
            what,
            is_script=script is not None,
            patience=self._patience,
            longest_pause=self._longest_pause,
            tried=self._node,
        )
        while True:
            try:
                connection = self._connection or self._connect(recovery)
                if recovery.load and script is not None:
                    connection.send_packed_command([pack(["SCRIPT", "LOAD", script])], check_health=False)
                    connection.read_response()
                    recovery.load = False
                connection.send_packed_command([pack(words)], check_health=False)
                return connection.read_response()
            except (RedisError, OSError) as fault:
                pause = recovery.after(fault, is_closed=self._stopped.is_set())
                if recovery.drop:
                    self._drop()
                self._stopped.wait(pause)

    def _connect(self, recovery: Recovery) -> SyncConnection:
        self._node = recovery.tried = recovery.node or self._server.next_node()
        self._connection = connection = open_sync(self._server, self._client_name, self._timeout, self._node)
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
