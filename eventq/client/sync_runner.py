"""The sync runner: the same commands without a loop, for threads."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError

from eventq.client.faults import Remedy, refusal, remedy_of, unavailable
from eventq.client.runner import WRITER_LENGTH
from eventq.client.wire import pack
from eventq.ids import random_text

if TYPE_CHECKING:
    from eventq.client.server import Server
    from eventq.client.wire import SyncConnection
    from eventq.commands.core import Command, Verb

R = TypeVar("R")
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class SyncRunner:
    """Runs commands on one blocking connection, one at a time, from any thread. As AsyncRunner otherwise."""

    def __init__(self, server: Server, *, timeout: float = 5.0, patience: float = 10.0, client_name: str = "eventq") -> None:
        self._server = server
        self._timeout = timeout
        self._patience = patience
        self._client_name = client_name
        self._connection: SyncConnection | None = None
        self._lock = threading.Lock()
        self._pid = -1
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

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._drop()

    def _own(self) -> None:
        if self._pid != os.getpid():
            self._connection, self._pid = None, os.getpid()
            self._writer, self._number = random_text(WRITER_LENGTH), 0

    def _persist(self, what: str, words: list[str | int], script: str | None) -> Any:
        began, pause, unknown = time.monotonic(), _FIRST_PAUSE, False
        while True:
            try:
                connection = self._connection or self._connect()
                if unknown and script is not None:
                    connection.send_packed_command([pack(["SCRIPT", "LOAD", script])], check_health=False)
                    connection.read_response()
                    unknown = False
                connection.send_packed_command([pack(words)], check_health=False)
                return connection.read_response()
            except (RedisError, OSError) as error:
                remedy = remedy_of(error)
                if remedy is Remedy.LOAD_SCRIPT and script is not None:
                    unknown = True
                    continue
                if remedy in (Remedy.RAISE, Remedy.LOAD_SCRIPT):
                    raise refusal(error, what) from error
                if remedy is Remedy.RECONNECT:
                    self._drop()
                waited = time.monotonic() - began
                if waited + pause > self._patience:
                    raise unavailable(what, self._server.where, waited, error) from error
                time.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _connect(self) -> SyncConnection:
        connection = self._server.sync_connection(self._client_name, self._timeout)
        try:
            connection.connect()
            if not self._server.is_checked:
                connection.send_packed_command([pack(["INFO"])], check_health=False)
                self._server.check(connection.read_response())
        except BaseException:
            connection.disconnect()
            raise
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(RedisError, OSError):
                connection.disconnect()
