"""What is common to servers that belong together: asking a node, starting and removing all, waiting until they agree."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .servers import ServerError, ServerKind, TestServer

#: How long a topology may take to become whole again. Usual is a tenth; a busy machine is no failure.
PATIENCE = 30.0


class Node(TestServer):
    """A server among others, which is asked about them over its own socket."""

    def __init__(self, kind: ServerKind, *args: str, password: str | None = None) -> None:
        super().__init__(kind, *args)
        self._permissions = []  # a Sentinel does not even know most commands, and nodes have logins of their own
        self.password = password

    def ask(self, *words: str | int) -> Any:
        """Send one command over the unix socket, on a connection of its own; replies are as in RESP2."""
        with redis.Redis(
            unix_socket_path=str(self.socket_path),
            password=self.password,
            decode_responses=True,
            protocol=2,
            socket_timeout=PATIENCE,
            retry=Retry(NoBackoff(), 0),
        ) as client:
            return client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """Return one section of INFO."""
        rows: dict[str, Any] = self.ask("INFO", section)
        return rows

    def follows(self, primary: TestServer) -> bool:
        """Whether it is a replica of that server, with everything so far and a link that is up."""
        rows = self.info("replication")
        return rows.get("master_port") == primary.port and rows["master_link_status"] == "up"

    def _options(self) -> dict[str, str]:
        # A primary waits 5 seconds before the first copy, in case there are more replicas.
        options = super()._options() | {"--repl-diskless-sync-delay": "0"}
        return options | ({"--requirepass": self.password, "--masterauth": self.password} if self.password else {})


class Topology:
    """What cluster and sentinels have in common: several nodes, started and removed together."""

    __test__ = False

    def __init__(self, kind: ServerKind) -> None:
        self.kind: ServerKind = kind
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def start(self) -> Self:
        """Start every node, make them one, and wait until they are."""
        try:
            self._form()
            self.wait_until_whole()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End every node and remove their directories."""
        self._stack.close()

    def kill(self, node: Node) -> None:
        """End a node as a power cut would. What follows is up to the others; `wait_until_whole` waits for it."""
        node.kill()

    def restart(self, node: Node) -> None:
        """Start a node that was killed or stopped, and wait until it belongs to the others again."""
        node.start()
        self.wait_until_whole()

    def wait_until_whole(self) -> None:
        """Wait until all running nodes agree on who is the primary of what, and all replicas follow."""
        wait(self._is_whole, f"{self} to be whole")

    def _form(self) -> None:
        raise NotImplementedError

    def _is_whole(self) -> bool:
        raise NotImplementedError


def wait(condition: Callable[[], bool], description: str) -> None:
    """Return as soon as the condition holds; a node that does not answer yet, as one that loads, does not meet it."""
    deadline = time.monotonic() + PATIENCE
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise ServerError(f"waited {PATIENCE} s for {description}")
        time.sleep(0.01)  # sleep-ok: other processes come to agree; there is nothing to wait on but their answers


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (redis.ConnectionError, redis.TimeoutError):
        return False
