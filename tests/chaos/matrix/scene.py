"""A scene: one server and everybody at work on one queue, faults striking meanwhile, and after them the quiet to take stock in."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import redis

from eventq import Durability, Queue
from eventq.errors import ConfigurationError, QueueUnavailable, ServerRefused, Unconfirmed

from ...conftest import skip_for
from ...servers import ServerKind, TestServer, free_port
from ...topologies import TestCluster, TestSentinel
from ..proxy import FaultProxy
from ..stored import is_drained
from .actors import MIX
from .crew import Actor, Crew
from .kinds import PERSISTENCE, Ground, Kind, Link, ground_of
from .tail import Tail

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence
    from pathlib import Path
    from typing import Self

    from ..ledger import Ledger

#: Seconds; renewed every third of it.
LEASE: Final = 2.0
WORKERS: Final = 3
PRODUCERS: Final = 2
READER: Final = "reader"
#: Seconds after the faults within which everything must have ended: a lease, the sweep, delays and retries, and work itself.
DRAINS_WITHIN: Final = 30.0


@dataclass(frozen=True)
class Size:
    """How much work there is: so many jobs over so many seconds, so many slots per worker."""

    jobs: int = 260
    seconds: float = 3.0
    slots: int = 12
    group: int = 12
    mix: dict[str, int] = field(default_factory=lambda: dict(MIX))


class Scene:
    """Everybody at work. Faults reach for what they need here: `server`, `proxy`, `crew`, `ask`, `chance`."""

    def __init__(self, kind: ServerKind, ledger: Ledger, faults: Sequence[Kind], seed: int, size: Size) -> None:
        self.ledger = ledger
        self.faults = faults
        self.seed = seed
        self.size = size
        self.tail = Tail(ledger)
        self.chance = random.Random(seed)
        self.queue = "scene"
        allowed = [set(fault.persistence or PERSISTENCE) for fault in faults] or [set(PERSISTENCE)]
        self.persistence = self.chance.choice(sorted(set.intersection(*allowed)))
        options = [word for words in dict.fromkeys(fault.server for fault in faults) for word in words]
        self.ground = ground_of(faults)
        self._topology = _topology(self.ground, kind, *PERSISTENCE[self.persistence], *options, "--enable-debug-command", "yes")
        self.proxy: FaultProxy | None = None
        self.crew = Crew(ledger, self.queue, seed)
        self.exporter_port = free_port()
        self.spans = ledger.directory.parent / "spans"
        #: When the last fault was over.
        self.healed_ns = 0
        self.drained_after = 0.0
        self.strikes = 0
        #: Whether faults strike one after the other, without a pause in between.
        self.is_restless = False

    @property
    def server(self) -> TestServer:
        """The server that holds the queue now."""
        match self._topology:
            case TestServer() as server:
                return server
            case TestSentinel() as sentinel:
                return sentinel.primary()
            case TestCluster() as cluster:
                return cluster.node_of(self.queue)

    @property
    def sentinel(self) -> TestSentinel:
        """The sentinels, where there are some."""
        assert isinstance(self._topology, TestSentinel)
        return self._topology

    @property
    def cluster(self) -> TestCluster:
        """The cluster, where there is one."""
        assert isinstance(self._topology, TestCluster)
        return self._topology

    @property
    def direct_url(self) -> str:
        """Where the server is, past any proxy."""
        return self._topology.url

    @property
    def url(self) -> str:
        """Where most of them reach the server."""
        return self.proxy.url if self.proxy is not None and self._link is Link.ALL else self.direct_url

    @property
    def _link(self) -> Link:
        links = {fault.link for fault in self.faults}
        return Link.ALL if Link.ALL in links else Link.ONE if Link.ONE in links else Link.DIRECT

    @asynccontextmanager
    async def at_work(self) -> AsyncGenerator[Self]:
        """Start the server and everybody; end them all."""
        async with AsyncExitStack() as stack:
            if any(fault.small_disk for fault in self.faults):
                stack.enter_context(small_disk(self.server.directory))
            stack.enter_context(self._topology)
            if self._link is not Link.DIRECT:
                self.proxy = stack.enter_context(FaultProxy(self.server.port, seed=self.seed))
            stack.enter_context(self.crew)
            await self._begin()
            yield self

    async def _begin(self) -> None:
        async with Queue(self.queue, url=self.direct_url) as queue:
            await queue.upsert_schedule("tick", every=1, name="tick", data=0.01)
        start = self.crew.start
        others = [
            start("reader", self.url, consumer=READER),
            start("scheduler", self.url),  # with a longer lease than the workers have
            self.start_exporter(),
            self.start_tracer(),
        ]
        one = self.proxy.url if self.proxy is not None else self.url
        workers = [self.start_worker(one), *(self.start_worker() for _ in range(WORKERS - 1))]
        for actor in (*others, *workers):
            await actor.expect("ready")
        producers = [self.start_producer(self.size.jobs // PRODUCERS) for _ in range(PRODUCERS)]
        for producer in producers:
            await producer.expect("added")

    @property
    def is_lossy(self) -> bool:
        """Whether acknowledged work may be undone."""
        return any(fault.lossy for fault in self.faults)

    @property
    def halts_again(self) -> bool:
        """Whether the server may stand still twice within a lease, which is more than a grace is for."""
        return (self.is_restless and any(fault.halts for fault in self.faults)) or sum(fault.halts for fault in self.faults) > 1

    @property
    def durability(self) -> Durability:
        """What adds wait for."""
        return Durability.REPLICA if any(fault.confirmed for fault in self.faults) else Durability.MEMORY

    # -- who is there

    def start_worker(self, url: str | None = None, **options: Any) -> Actor:
        """Start a worker."""
        # Where the server may forget that a run has ended, its token is good again: nothing is to be learned from offering it.
        told: dict[str, Any] = {"concurrency": self.size.slots, "lease": LEASE, "forges": not self.is_lossy, **options}
        return self.crew.start("worker", url or self.url, **told)

    def start_producer(self, count: int, **options: Any) -> Actor:
        """Start a producer of so many jobs."""
        size = self.size
        told: dict[str, Any] = {
            "durability": self.durability,
            "count": count,
            "seconds": size.seconds,
            "group": size.group,
            "mix": size.mix,
            **options,
        }
        return self.crew.start("producer", self.url, **told)

    def start_exporter(self) -> Actor:
        """Start the exporter, always on the same port."""
        return self.crew.start("exporter", self.url, port=self.exporter_port)

    def start_tracer(self, **options: Any) -> Actor:
        """Start the tracer."""
        return self.crew.start("tracer", self.url, file=str(self.spans), **options)

    @property
    def worker(self) -> Actor:
        """Any worker; the one behind the proxy where there is one for it."""
        workers = self.crew.of("worker")
        return workers[0] if self._link is Link.ONE else self.chance.choice(workers)

    async def replace(self, actor: Actor) -> Actor:
        """Start another process that does the same as one that is gone, and return once one works: it may meet the next fault."""
        post = actor.post
        while True:
            successor = self.crew.start(post.program, post.url, **post.options)
            try:
                await successor.expect("ready")
            except AssertionError:
                if successor.is_alive or not (successor.code == -signal.SIGKILL or is_expected(successor.failure)):
                    raise
                await self.pause(0.2, 0.4)
            else:
                return successor

    async def add(self, name: str, count: int = 1, data: Any = 0.0, **options: Any) -> list[str]:
        """Add jobs of a fault's own, straight to the server; again where another fault is in the way."""
        ids: list[str] = []
        while len(ids) < count:
            try:
                async with Queue(self.queue, url=self.direct_url, durability=self.durability) as queue:
                    while len(ids) < count:
                        ids.append((await queue.add(name, data, **options)).id)
            except (QueueUnavailable, ServerRefused, Unconfirmed):
                await asyncio.sleep(0.1)  # sleep-ok: it asks again a little later
            except ConfigurationError as error:
                if not is_expected(str(error)):
                    raise
                await asyncio.sleep(0.1)  # sleep-ok: what it met at its start will be over
        self.ledger.acknowledged(*ids)
        return ids

    # -- what is going on

    async def ask(self, *words: Any, timeout: float = 20.0) -> Any:
        """Send the server one command, by a plain client; again while it restarts or is busy with something else."""
        return await asyncio.to_thread(self._ask, words, timeout)

    def _ask(self, words: tuple[Any, ...], timeout: float) -> Any:
        until = time.monotonic() + timeout
        while True:
            try:
                with self.client() as client:
                    return client.execute_command(*words)
            except redis.RedisError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)  # sleep-ok: a server that is away gives no news

    def client(self) -> redis.Redis:
        """Return a plain client of the server, past any proxy."""
        return redis.Redis(host="127.0.0.1", port=self.server.port, socket_timeout=10)

    async def until(self, condition: Callable[[], object], what: str, timeout: float = 20.0) -> None:
        """Return once the condition holds."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"SEED={self.seed}: waited {timeout} s for {what}\n{self.crew.log[-2000:]}"
            await asyncio.sleep(0.01)  # sleep-ok: other processes give no news

    async def pause(self, least: float, most: float) -> None:
        """Let a random while go by."""
        await asyncio.sleep(self.chance.uniform(least, most))  # sleep-ok: faults come at any moment, and last

    # -- faults, and afterwards

    async def strike_all(self) -> None:
        """Let every fault strike as often as it does, side by side with the others."""

        async def strike(kind: Kind) -> None:
            for _ in range(kind.times):
                await self.pause(0.05, 0.5)
                await kind.strike(self)
                self.strikes += 1

        async with asyncio.TaskGroup() as group:
            for kind in self.faults:
                group.create_task(strike(kind))

    async def heal(self) -> None:
        """Undo whatever is still wrong, and start again whoever is gone."""
        if self.proxy is not None:
            self.proxy.clear()
            self.proxy.heal()
        await asyncio.to_thread(self._heal_servers)
        if any(fault.number == 20 for fault in self.faults):  # its own connection may have been another fault's victim
            await self.ask("CONFIG", "SET", "maxclients", "10000")
        for actor in self.crew.actors:
            if actor.is_alive:
                actor.send(signal.SIGCONT)
        while len(self.crew.of("worker")) < WORKERS:
            await self.start_worker().expect("ready")
        for program, start in (("exporter", self.start_exporter), ("tracer", self.start_tracer)):
            if not self.crew.of(program):
                await start().expect("ready")
        for program in ("reader", "scheduler"):
            if not self.crew.of(program):
                gone = next(actor for actor in self.crew.actors if actor.post.program == program)
                await self.replace(gone)

    def _heal_servers(self) -> None:
        for node in self._topology.nodes:
            if not node.is_running:
                node.start()
            node.thaw()
        if not isinstance(self._topology, TestServer):
            self._topology.wait_until_whole()

    async def drain(self) -> None:
        """Let the producers end and everything be worked off; stop the workers, who must end well."""
        for producer in self.crew.of("producer"):
            await producer.ended(60)
        async with Queue(self.queue, url=self.direct_url) as queue:
            await queue.remove_schedule("tick")
        began = time.monotonic()
        with self.client() as client, contextlib.suppress(AssertionError):
            # The checker says what is stuck.
            await self.until(lambda: is_drained(client, self.queue), "an empty queue", DRAINS_WITHIN)
        self.drained_after = time.monotonic() - began
        for worker in self.crew.of("worker"):
            assert await worker.stop() == 0, (
                f"SEED={self.seed}: {worker} ended badly: {worker.said[-5:]}\n{self.crew.log[-2000:]}"
            )


def is_expected(failure: str) -> bool:
    """Whether a process was meant to fail so: started under a policy that evicts, without a permission, or on a replica."""
    return any(reason in failure for reason in ("maxmemory-policy", "lacks a permission", "is a replica: eventq writes"))


def _topology(ground: Ground, kind: ServerKind, *args: str) -> TestServer | TestSentinel | TestCluster:
    match ground:
        case Ground.SERVER:
            return TestServer(kind, *args)
        case Ground.SENTINEL:
            return TestSentinel(kind, *args)
        case Ground.CLUSTER:
            return TestCluster(kind, *args)


@contextlib.contextmanager
def small_disk(directory: Path) -> Generator[None]:
    """Mount a disk of a few MB here, which only root can; it is gone afterwards."""
    if os.getuid() != 0:
        skip_for("no permission to mount a small disk: root is needed")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "eventq-small-disk", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", directory], check=True)
        shutil.rmtree(directory, ignore_errors=True)
