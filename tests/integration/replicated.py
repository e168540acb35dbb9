"""A primary and a replica of a test's own, and what they say of connections that wait for a confirmation."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

from eventq.keys import QueueKeys

from ..conftest import skip_for
from ..nodes import Node, Topology
from ..servers import find_binary, missing_reason

if TYPE_CHECKING:
    from ..conftest import MakeServer
    from ..servers import ServerKind, TestServer


class Replicated(Topology):
    """Two servers: `primary` and `replica`. Nobody promotes anybody by himself."""

    def __init__(self, kind: ServerKind) -> None:
        super().__init__(kind)
        self.primary, self.replica = (self._stack.enter_context(closing(Node(kind))) for _ in range(2))

    def follow(self) -> None:
        """Make the replica follow the primary, wherever either is by now."""
        self.primary.start()
        self.replica.thaw()
        self.primary.ask("REPLICAOF", "NO", "ONE")
        self.replica.ask("REPLICAOF", "127.0.0.1", self.primary.port)
        self.wait_until_whole()

    def waiting(self) -> int:
        """Return how many connections of the primary are blocked, as WAIT does."""
        return int(self.primary.info("clients")["blocked_clients"])

    def clients(self) -> int:
        """Return how many connections of ours the primary has."""
        return str(self.primary.ask("CLIENT", "LIST")).count("name=eventq")

    def calls(self, command: str) -> int:
        """Return how often the primary has run a command."""
        rows: dict[str, Any] = self.primary.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
        return int(rows["calls"])

    def _form(self) -> None:
        self.replica.start()
        self.follow()

    def _is_whole(self) -> bool:
        rows = self.primary.info("replication")
        return self.replica.follows(self.primary) and rows.get("slave0", {}).get("state") == "online"


def is_stored(node: Node, queue: str, job_id: str) -> bool:
    """Whether a node has this job."""
    return bool(node.ask("HEXISTS", QueueKeys(queue)["jobs"], job_id))


def need_valkey() -> None:
    """Skip where there is no Valkey: Redis 7.0 has no WAITAOF, and its WAIT waits for what anybody wrote."""
    if find_binary("valkey") is None:
        skip_for(missing_reason("valkey"))


def server_with_a_disk(make_server: MakeServer) -> TestServer:
    """Return a server that confirms what is on its disk."""
    need_valkey()
    return make_server("--appendonly", "yes", "--appendfsync", "always", kind="valkey")


async def set_by_hand(port: int, *words: str) -> None:
    """Send one command as an operator."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{' '.join(words)}\r\n".encode())
    assert (await _.readline()).startswith(b"+OK")
    writer.close()
    await writer.wait_closed()
