"""Several servers that belong together, for tests: a cluster, a primary watched by sentinels, and (in tests.tls) TLS.

All are made of `TestServer`, so they end with the test process and leave nothing behind. `with TestCluster(kind) as
cluster:` starts one; where a server or a tool is missing, `missing_reason` and `tls_missing_reason` say what to install.
"""

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import redis
from redis.crc import key_slot
from redis.exceptions import MovedError

from .nodes import PATIENCE, Node, Topology, wait
from .servers import ServerKind, free_port, missing_reason
from .tls import Certificate, Certificates, TlsServer, tls_missing_reason

__all__ = [
    "Certificate",
    "Certificates",
    "ClusterNode",
    "DataNode",
    "RoamingRedis",
    "Sentinel",
    "TestCluster",
    "TestSentinel",
    "TlsServer",
    "missing_reason",
    "slot_of",
    "tls_missing_reason",
]

SLOTS = 16_384
#: Keys per MIGRATE.
MIGRATE_KEYS = 100


# -- cluster


class ClusterNode(Node):
    """One node of a cluster. Its bus has a port of its own: the usual one, 10,000 higher, may be taken by a connection."""

    def __init__(self, kind: ServerKind, *args: str, node_timeout_ms: int) -> None:
        super().__init__(kind, *args)
        self.bus_port = free_port()
        self._node_timeout_ms = node_timeout_ms
        self._id = ""

    @property
    def id(self) -> str:
        """The name of the node among the others; it keeps it as long as its directory."""
        self._id = self._id or str(self.ask("CLUSTER", "MYID"))
        return self._id

    def _choose_ports(self) -> None:
        super()._choose_ports()
        self.bus_port = free_port()

    def _options(self) -> dict[str, str]:
        return super()._options() | {
            "--cluster-enabled": "yes",
            "--cluster-port": str(self.bus_port),
            "--cluster-node-timeout": str(self._node_timeout_ms),
        }


class Peer(NamedTuple):
    """What one node says about another."""

    id: str
    flags: frozenset[str]
    primary_id: str
    slots: tuple[range, ...]


class TestCluster(Topology):
    """Primaries that share the slots evenly, each with as many replicas as asked for."""

    __test__ = False

    def __init__(self, kind: ServerKind, *args: str, primaries: int = 3, replicas: int = 0, node_timeout_ms: int = 1_000) -> None:
        super().__init__(kind)
        self.nodes = [
            self._stack.enter_context(closing(ClusterNode(kind, *args, node_timeout_ms=node_timeout_ms)))
            for _ in range(primaries * (1 + replicas))
        ]
        self._primaries = primaries

    def __repr__(self) -> str:
        return f"<TestCluster {self.kind} {self.url}>"

    @property
    def url(self) -> str:
        """Every node, dead or alive, as a cluster:// URL."""
        return "cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def peers(self, asked: ClusterNode | None = None) -> dict[str, Peer]:
        """Return what a node says of all nodes, itself included; the first that runs unless another is asked."""
        asked = asked or next(node for node in self.nodes if node.is_running)
        lines: str = asked.ask("CLUSTER", "NODES")
        return {peer.id: peer for peer in map(_read_peer, lines.splitlines())}

    def node_of(self, key_or_slot: str | int) -> ClusterNode:
        """Return the primary of a slot, a key, or a queue by its name."""
        slot = slot_of(key_or_slot)
        owner = next(peer.id for peer in self.peers().values() if any(slot in slots for slots in peer.slots))
        return self._node(owner)

    def replicas_of(self, primary: ClusterNode) -> list[ClusterNode]:
        """Return the replicas of a primary."""
        return [self._node(peer.id) for peer in self.peers().values() if peer.primary_id == primary.id]

    def failover(self, primary: ClusterNode) -> ClusterNode:
        """Let a replica take over without losing a write, and return it once everybody knows; the old one follows it.

        Do not kill a primary whose replica took over itself within the last two node timeouts: Redis 7.0 then counts its
        old votes again, and the others do not believe it.
        """
        replica = self.replicas_of(primary)[0]
        replica.ask("CLUSTER", "FAILOVER")
        wait(lambda: replica.info("replication")["role"] == "master", f"{replica} to take over")
        self.wait_until_whole()
        return replica

    def move_slot(self, key_or_slot: str | int, to: ClusterNode) -> None:
        """Move a slot with all its keys while clients work, and wait until every node knows."""
        self.begin_move(key_or_slot, to)
        while self.move_keys(key_or_slot, to):
            pass
        self.end_move(key_or_slot, to)

    def begin_move(self, key_or_slot: str | int, to: ClusterNode) -> None:
        """Open a slot: from now on what its owner does not have is asked of `to`, or has to be tried again."""
        slot, source = slot_of(key_or_slot), self.node_of(key_or_slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", to.id)

    def move_keys(self, key_or_slot: str | int, to: ClusterNode, count: int = MIGRATE_KEYS) -> int:
        """Move this many keys of an open slot at most; return how many went. None is left when it says 0."""
        source = self.node_of(key_or_slot)
        keys: list[str] = source.ask("CLUSTER", "GETKEYSINSLOT", slot_of(key_or_slot), count)
        if keys:
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, round(PATIENCE * 1000), "KEYS", *keys)
        return len(keys)

    def end_move(self, key_or_slot: str | int, to: ClusterNode) -> None:
        """Close a slot whose keys have all gone to `to`."""
        slot, source = slot_of(key_or_slot), self.node_of(key_or_slot)
        peers = self.peers(to)
        others = [node for node in self.nodes if node.is_running and "master" in peers[node.id].flags]
        # First the new owner: if the old one let go first, nobody would have the slot for a moment.
        for node in sorted(others, key=lambda node: (node is not to, node is not source)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", to.id)
        self.wait_until_whole()

    def _form(self) -> None:
        for node in self.nodes:
            node.start()
        primaries, replicas = self.nodes[: self._primaries], self.nodes[self._primaries :]
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            # Everybody is introduced to everybody: hearsay takes seconds.
            for other in self.nodes[:number]:
                node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        for number, node in enumerate(primaries):
            first, end = (SLOTS * n // len(primaries) for n in (number, number + 1))
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for number, node in enumerate(replicas):
            wait(partial(self._knows_all, node), f"{node} to know the others")
            node.ask("CLUSTER", "REPLICATE", primaries[number % len(primaries)].id)

    def _knows_all(self, node: ClusterNode) -> bool:
        return self.peers(node).keys() == {each.id for each in self.nodes}

    def _is_whole(self) -> bool:
        running = [node for node in self.nodes if node.is_running]
        if any("cluster_state:ok" not in node.ask("CLUSTER", "INFO") for node in running):
            return False
        views = [self.peers(node) for node in running]
        if not all(map(self._knows_all, running)) or any(_roles(view) != _roles(views[0]) for view in views):
            return False
        owners = [peer for peer in views[0].values() if peer.slots]
        down = any(not self._node(peer.id).is_running for peer in owners)
        failing = any(_is_failing(view[node.id]) for view in views for node in running)
        return not down and not failing and all(self._is_in_place(node, views[0][node.id]) for node in running)

    def _is_in_place(self, node: ClusterNode, peer: Peer) -> bool:
        return bool(peer.slots) or peer.primary_id == "-" or node.follows(self._node(peer.primary_id))

    def _node(self, node_id: str) -> ClusterNode:
        return next(node for node in self.nodes if node.id == node_id)


class RoamingRedis(redis.Redis):
    """A plain client of one server, replies are bytes. For a key that another node of its cluster has it asks that one."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send one command where it belongs."""
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        except MovedError as moved:
            with redis.Redis(host=moved.host, port=moved.port) as other:
                return other.execute_command(*args, **options)


def slot_of(key_or_slot: str | int) -> int:
    """Return the slot of a key, or of a queue by its name."""
    return key_or_slot if isinstance(key_or_slot, int) else key_slot(key_or_slot.encode())


def _read_peer(line: str) -> Peer:
    node_id, _, flags, primary_id, _, _, _, _, *slots = line.split()
    spans = [span.split("-") for span in slots if not span.startswith("[")]  # in brackets: a slot that is moving
    return Peer(node_id, frozenset(flags.split(",")), primary_id, tuple(range(int(s[0]), int(s[-1]) + 1) for s in spans))


def _roles(view: dict[str, Peer]) -> set[tuple[str, str, tuple[range, ...]]]:
    return {(peer.id, peer.primary_id, peer.slots) for peer in view.values()}


def _is_failing(peer: Peer) -> bool:
    return bool(peer.flags & {"fail", "fail?", "handshake", "noaddr"})


# -- sentinels


class DataNode(Node):
    """A primary or a replica. A sentinel has it write down which, so it has a file to write that to."""

    def _command(self) -> list[str | Path]:
        binary, *options = super()._command()
        path = self.directory / "server.conf"
        path.touch()
        return [binary, path, *options]


class Sentinel(Node):
    """One sentinel. It writes what it learns to its own file, which is there before it starts for the first time."""

    def __init__(self, kind: ServerKind, config: str, *, password: str | None) -> None:
        super().__init__(kind, password=password)
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(config)

    def start(self) -> Self:
        """Start it, and have it look around more often than every ten seconds, and not wait 15 for a link that is stuck."""
        super().start()
        # A replica is good enough to be promoted if it was heard of within five pings; it is asked once a second then.
        periods = {"info-period": 100, "ping-period": 400, "ask-period": 100, "min-link-reconnect-period": 500}
        self.ask("SENTINEL", "DEBUG", *(word for setting in periods.items() for word in setting))
        return self

    def publish_every(self, period_ms: int) -> None:
        """Set how often it tells the others what it knows; after four times that it makes a stray primary a replica."""
        self.ask("SENTINEL", "DEBUG", "publish-period", period_ms)

    def _command(self) -> list[str | Path]:
        binary, *options = super()._command()
        return [binary, self._config, *options, "--sentinel"]

    def _options(self) -> dict[str, str]:
        options = super()._options()
        options.pop("--masterauth", None)
        return options


class TestSentinel(Topology):
    """A primary, replicas, and sentinels of which two agree on who is the primary."""

    __test__ = False

    def __init__(
        self,
        kind: ServerKind,
        *args: str,
        replicas: int = 1,
        sentinels: int = 3,
        service: str = "main",
        password: str | None = None,
        sentinel_password: str | None = None,
        down_after_ms: int = 1_000,
        failover_timeout_ms: int = 3_000,
    ) -> None:
        super().__init__(kind)
        self.service = service
        self.password = password
        self.sentinel_password = sentinel_password
        self.sentinels: list[Sentinel] = []
        self._sentinels = sentinels
        # The second one is how long a step of a failover may take before it is given up.
        self._timing = {"down-after-milliseconds": down_after_ms, "failover-timeout": failover_timeout_ms}
        self.nodes = [self._stack.enter_context(closing(DataNode(kind, *args, password=password))) for _ in range(1 + replicas)]

    def __repr__(self) -> str:
        return f"<TestSentinel {self.kind} {self.service} {self.nodes}>"

    @property
    def url(self) -> str:
        """Every sentinel, dead or alive, as a sentinel:// URL; its first password is the servers' own."""
        login = f":{self.password}@" if self.password else ""
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        options = f"?sentinel_password={self.sentinel_password}" if self.sentinel_password else ""
        return f"sentinel://{login}{places}/{self.service}/0{options}"

    def primary(self) -> DataNode:
        """Return the primary that the first running sentinel names."""
        return self._primary_of(self._awake()[0])

    def replicas(self) -> list[DataNode]:
        """Return every data node that is not the primary, dead or alive."""
        primary = self.primary()
        return [node for node in self.nodes if node is not primary]

    def failover(self) -> DataNode:
        """Have the sentinels promote a replica; return it once everybody agrees and the old primary follows it."""
        before = self.primary()
        wait(lambda: self._is_promoted(before), f"{self} to have another primary than {before}")
        self.wait_until_whole()
        return self.primary()

    def kill_primary(self) -> DataNode:
        """Kill the primary and return it. `wait_until_whole` waits until a replica took over."""
        primary = self.primary()
        primary.kill()
        return primary

    def wait_until_whole(self) -> None:
        """Wait until every sentinel and data node that runs knows its primary and all the others."""
        wait(self._is_agreed, f"{self} to agree on a primary")
        # Hurried before they agree, they would make a replica again of the one that another sentinel just promoted.
        for sentinel in self._awake():
            sentinel.publish_every(100)
        super().wait_until_whole()
        for sentinel in self._awake():
            sentinel.publish_every(2_000)

    def _awake(self) -> list[Sentinel]:
        return [sentinel for sentinel in self.sentinels if sentinel.is_running]

    def _form(self) -> None:
        first, *others = (node.start() for node in self.nodes)
        for node in others:
            node.ask("REPLICAOF", "127.0.0.1", first.port)
        for node in self.nodes:
            node.ask("CONFIG", "REWRITE")
        for _ in range(self._sentinels):
            sentinel = Sentinel(self.kind, self._config(first), password=self.sentinel_password)
            self.sentinels.append(self._stack.enter_context(closing(sentinel)).start())

    def _config(self, primary: DataNode) -> str:
        settings = [f"monitor {self.service} 127.0.0.1 {primary.port} 2"]
        settings += [f"{name} {self.service} {value}" for name, value in self._timing.items()]
        settings += [f"auth-pass {self.service} {self.password}"] if self.password else []
        settings += [f"sentinel-pass {self.sentinel_password}"] if self.sentinel_password else []
        return "".join(f"sentinel {setting}\n" for setting in settings)

    def _is_promoted(self, before: DataNode) -> bool:
        if self.primary() is not before:
            return True
        try:
            # Asked again and again, as they give up now and then. While they are at it they refuse.
            self._awake()[0].ask("SENTINEL", "FAILOVER", self.service)
        except redis.ResponseError as error:
            if not str(error).startswith(("INPROG", "NOGOODSLAVE")):
                raise
        return False

    def _is_agreed(self) -> bool:
        primary = self.primary()
        named = [self._primary_of(sentinel) for sentinel in self._awake()]
        return primary.is_running and set(named) == {primary} and primary.info("replication")["role"] == "master"

    def _is_whole(self) -> bool:
        primary, sentinels = self.primary(), self._awake()
        others = [node for node in self.nodes if node.is_running and node is not primary]
        return (
            self._is_agreed()
            and all(node.follows(primary) for node in others)
            and all(self._count(sentinel, "REPLICAS") == len(others) for sentinel in sentinels)
            and all(self._count(sentinel, "SENTINELS") == len(sentinels) - 1 for sentinel in sentinels)
        )

    def _count(self, sentinel: Sentinel, whom: str) -> int:
        rows: list[list[str]] = sentinel.ask("SENTINEL", whom, self.service)
        flags = [dict(zip(row[::2], row[1::2], strict=True))["flags"] for row in rows]
        return sum("down" not in text.replace("master_down", "") and "disconnected" not in text for text in flags)

    def _primary_of(self, sentinel: Sentinel) -> DataNode:
        _, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.service)
        return next(node for node in self.nodes if node.port == int(port))
