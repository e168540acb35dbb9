"""Follower: the events of many queues in batches, for processes that keep a state of their own about them, such as exporters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, Final

from eventq.client import AsyncRunner, Server
from eventq.commands.inspect import list_queues, ping, queue_exists, server_info
from eventq.durations import to_ms
from eventq.errors import ConfigurationError, EventqError, QueueUnavailable
from eventq.followed import FollowedQueue, FollowerSink, Link, pump
from eventq.ids import random_text
from eventq.keys import QueueKeys, check_queue_name
from eventq.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from datetime import timedelta
    from typing import Self

    from eventq.commands.watch import QueueState

log: Final = logging.getLogger("eventq")

#: Seconds between two looks at the list of queues, and between two tries to take what another process holds.
DISCOVER_EVERY: Final = 2.0
_STAND_BY: Final = 0.5
#: Seconds that opening, and the last saves at close, may take.
_OPEN_PATIENCE: Final = 10.0
_CLOSE_PATIENCE: Final = 2.0
#: Seconds that the last event of a queue that is gone is waited for.
_LAST_WORDS: Final = 5.0


class Follower(Opened):
    """Follows the events of all queues of a server, new ones too, or of those named; saves a state with the place in one write.

    Under one name (`consumer`) one process follows; a second one stands by, and takes over everything when the first falls
    silent for `hold` seconds. A queue followed for the first time begins at the oldest event kept. In order for each queue, each
    event at least once: what was handled after the last save is handled again by whoever goes on, from the state that was saved.
    What was trimmed before it was read, and what a failover undid, is told to the event.

    Redis away: it carries on by itself when Redis is back. Three connections, in a Cluster one and two per queue. Idle: two
    requests a second, and one per queue every third of `hold`.
    """

    def __init__(
        self,
        consumer: str,
        sink: FollowerSink,
        *,
        url: str | None = None,
        prefix: str = "eventq",
        queues: Sequence[str] | None = None,
        hold: float | timedelta = 10.0,
        on_fault: Callable[[Exception], None] | None = None,
    ) -> None:
        """Name it; nothing is opened yet. Raises ConfigurationError naming option and value."""
        self.consumer = check_queue_name(consumer, "consumer")
        self.prefix = QueueKeys("any", prefix=prefix).prefix
        self._wanted = None if queues is None else sorted({check_queue_name(queue) for queue in queues})
        if self._wanted == []:
            raise ConfigurationError("queues []: name at least one, or leave it out to follow all")
        self._sink = sink
        self._url = url
        self._hold_ms = to_ms("hold", hold, minimum_ms=300)
        self._on_fault = on_fault
        self._holder = random_text(12)
        self._server = Server(url, f"{self.prefix}:queues")
        self._runner = AsyncRunner(self._server, patience=_OPEN_PATIENCE, client_name="eventq-follower")
        self._links: dict[str, Link] = {}
        self._queues: dict[str, FollowedQueue] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._is_closing = False
        self._missing: set[str] = set()
        #: What was said of queues that cannot be read, so that it is said once.
        self._told: dict[str, str] = {}
        #: Names that are held by another process, as far as the last look told.
        self._stands_by = False
        self._server_facts: tuple[str, str] = ("", "")
        #: What it stopped with, if something did that no repeating mends; so does whatever the sink raises.
        self.failure: BaseException | None = None

    @property
    def where(self) -> str:
        """The server, without user and password."""
        return self._server.where

    @property
    def server(self) -> tuple[str, str]:
        """Kind and version of the server, known once open."""
        return self._server_facts

    @property
    def queues(self) -> Mapping[str, FollowedQueue]:
        """What is followed now, by name."""
        return self._queues

    @property
    def is_leading(self) -> bool:
        """Whether this process is not standing by for another one of the same name."""
        return not self._stands_by

    @property
    def missing(self) -> frozenset[str]:
        """The queues that were asked for and are not there yet."""
        return frozenset(self._missing)

    @property
    def read_at(self) -> float:
        """When (the loop's clock) Redis last answered a read of all that is followed; 0 for not yet."""
        return min((link.read_at for link in self._links.values() if link.queues), default=0.0)

    @property
    def reconnects(self) -> int:
        """How many connections had to be made again."""
        return sum(link.reconnects for link in self._links.values())

    async def open(self) -> Self:
        """Connect, check the server, take what can be taken; then follow in the background.

        Raises QueueUnavailable, ServerRefused or ConfigurationError when the server is away, refuses, or is too old.
        """
        facts = await self._runner.run_verb(server_info())
        kind = facts.get("server_name", "redis")
        self._server_facts = (kind, facts.get(f"{kind}_version", facts.get("redis_version", "")))
        await self._attend()
        self._run("attend", self._keep_attending())
        return self

    async def close(self) -> None:
        """Stop reading, save where it is, give the name up. Safe to call twice."""
        self._is_closing = True
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._tasks.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_PATIENCE):
                await self._on_each_link(list(self._queues.values()), lambda queue: self._save(queue, 0))
        self._queues.clear()
        for link in self._links.values():
            await link.close()
        await self._runner.close()

    async def save(self, queue: str) -> bool:
        """Save place and state of a queue in one write, if it is still ours; return whether it was. One round trip.

        False too while what was received is being flushed: then the name is kept and nothing else is written.

        Waits while Redis is away: bound it with a timeout. Cancelled, what is saved is either the old or the new, whole.
        """
        followed = self._queues.get(queue)
        return followed is not None and await self._save(followed, self._hold_ms)

    async def observe(self, queue: str) -> QueueState:
        """Read how a followed queue is at one moment. One round trip. Waits while Redis is away: bound it with a timeout."""
        return await self._queues[queue].observe()

    async def for_each(self, work: Callable[[str], Coroutine[Any, Any, object]]) -> None:
        """Do something for each followed queue, one after the other; in a Cluster side by side, so that a node that hangs holds
        up its own queues alone. What takes longer than half of `hold` is given up.
        """
        await self._on_each_link(list(self._queues.values()), lambda queue: work(queue.name))

    async def ping(self) -> None:
        """Ask the server for an answer. Raises QueueUnavailable."""
        await self._runner.run_verb(ping())

    # -- taking and keeping the name

    async def _keep_attending(self) -> None:
        while True:
            await asyncio.sleep(_STAND_BY if self._stands_by else min(DISCOVER_EVERY, self._hold_ms / 5000))
            try:
                await self._attend()
            except EventqError as error:  # Redis is away, or refuses: what is followed goes on, and this is tried again
                log.warning("follower %s: %s", self.consumer, error)

    async def _attend(self) -> None:
        """Save what is followed, and follow what is there now and what is not followed yet."""
        now = asyncio.get_running_loop().time()
        await self._save_due(list(self._queues.values()))
        listed = await self._runner.run_verb(list_queues(self.prefix))
        there = await self._there(listed)
        for name, queue in list(self._queues.items()):
            # What is read and not flushed waits for somebody else; what is left of its events is read after that.
            queue.gone_at = 0.0 if name in there or queue.is_unflushed else queue.gone_at or now
            # It was obliterated; its last event is still to be read, which may take a moment.
            if queue.gone_at and (not queue.epoch or now - queue.gone_at > _LAST_WORDS):
                await self._save(queue, 0)
                await self._drop(name)
        await self._take([name for name in sorted(there) if name not in self._queues], there)

    async def _save_due(self, queues: Sequence[FollowedQueue]) -> None:
        """Save what was not saved for a while; keep the name of what cannot be saved now."""
        before = asyncio.get_running_loop().time() - self._hold_ms / 3000
        # One that was kept meanwhile is saved as soon as it can be.
        due = [queue for queue in queues if (queue.kept_at if queue.is_unflushed else queue.saved_at) <= before]
        await self._on_each_link(due, lambda queue: self._save(queue, self._hold_ms))

    async def _on_each_link(
        self, queues: Sequence[FollowedQueue], work: Callable[[FollowedQueue], Coroutine[Any, Any, object]]
    ) -> None:
        """Do something for each of these queues, one after the other on each link: a node that hangs holds up its own alone."""
        links: dict[str, list[FollowedQueue]] = {}
        for queue in queues:
            links.setdefault(queue.link.key, []).append(queue)

        async def one_link(own: list[FollowedQueue]) -> None:
            for queue in own:
                try:
                    async with asyncio.timeout(self._hold_ms / 2000):
                        await work(queue)
                except TimeoutError:
                    return
                except EventqError as error:  # each save finds it again
                    self._tell_once(queue.name, f"queue {queue.name!r}: {error}")

        await asyncio.gather(*[one_link(own) for own in links.values()])

    async def _there(self, listed: Mapping[str, str]) -> dict[str, str | None]:
        """Return the queues to follow, with their tags."""
        if self._wanted is None:
            return dict(listed)
        there: dict[str, str | None] = {}
        for name in self._wanted:
            if name in listed or await self._runner.run_verb(queue_exists(QueueKeys(name, prefix=self.prefix))):
                there[name] = listed.get(name)
            elif name not in self._missing:
                log.warning("there is no queue %r on %s yet: waiting for it", name, self.where)
        self._missing = set(self._wanted) - set(there)
        return there

    async def _take(self, names: Sequence[str], tags: Mapping[str, str | None]) -> None:
        """Take the name of each queue, in order; what another process holds means to stand by, if nothing was ours before.

        A process that stands by takes all or nothing, so the queues of one name are in one hand.
        """
        leads = bool(self._queues)
        taken: list[FollowedQueue] = []
        for name in names:
            try:
                queue = FollowedQueue(QueueKeys(name, prefix=self.prefix, tag=tags[name]), self._link(name, tags[name]))
                async with asyncio.timeout(self._hold_ms / 2000):
                    state = await queue.take(self.consumer, self._holder, self._hold_ms)
            except TimeoutError:  # its node does not answer: it is tried again
                continue
            except QueueUnavailable:
                raise
            except EventqError as error:  # one that cannot be read keeps nobody from the others
                self._tell_once(name, f"queue {name!r} is left out: {error}")
                continue
            if state is not None:
                queue.restored_state = state
                taken.append(queue)
            elif not leads:
                self._stands_by = True
                for each in taken:
                    await each.give_up()
                return
        self._stands_by = False
        for queue in taken:
            await self._begin(queue)

    async def _begin(self, queue: FollowedQueue) -> None:
        self._queues[queue.name] = queue
        await self._sink.restored(queue.name, queue.restored_state)
        if self._sink.state(queue.name) != queue.restored_state:
            await self._save(queue, self._hold_ms)
        if self._queues.get(queue.name) is not queue:
            return
        for gap in queue.take_gaps():
            queue.tell(gap, self._sink)
        queue.link.queues[queue.name] = queue
        key = queue.link.key
        if key not in self._tasks:
            link = queue.link
            self._run(key, pump(link, self._sink, lambda: self._save_due(list(link.queues.values()))))

    def _run(self, key: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[key] = task = asyncio.create_task(work, name=f"eventq-follower {key}")
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("follower %s: stopped reading", self.consumer, exc_info=error)
            self.failure = self.failure or error

    def _link(self, name: str, tag: str | None) -> Link:
        """Return the connections for a queue: the same for all, but in a Cluster, where each queue is on a node of its own."""
        is_cluster = self._server.address.kind == "cluster"
        key = name if is_cluster else "all"
        if key not in self._links:
            server = Server(self._url, QueueKeys(name, prefix=self.prefix, tag=tag)["meta"]) if is_cluster else self._server
            self._links[key] = Link(key, server, self._on_fault)
        return self._links[key]

    async def _save(self, queue: FollowedQueue, hold_ms: int) -> bool:
        async with queue.saving:
            # Once it closes nothing is held again.
            if self._queues.get(queue.name) is not queue or queue.is_broken or (self._is_closing and hold_ms):
                return False
            if queue.is_unflushed:
                if await queue.keep(hold_ms):
                    return False
            elif await queue.save(self._sink.state(queue.name), hold_ms):
                self._sink.saved(queue.name)
                return True
            # Another process took over while this one was away: it has everything, or will have it.
            log.warning("follower %s: another process has taken over; standing by", self.consumer)
            self._stands_by = True
            for name in list(self._queues):
                self._let_go(name)
            return False

    def _let_go(self, name: str) -> FollowedQueue | None:
        queue = self._queues.pop(name, None)
        if queue is not None:
            queue.link.queues.pop(name, None)
            self._sink.left(name)
        return queue

    async def _drop(self, name: str) -> None:
        """Let go of a queue that is gone, and in a Cluster of its connections."""
        queue = self._let_go(name)
        if queue is None or queue.link.queues or self._server.address.kind != "cluster":
            return
        self._links.pop(queue.link.key, None)
        task = self._tasks.pop(queue.link.key, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await queue.link.close()

    def _tell_once(self, name: str, text: str) -> None:
        if self._told.get(name) != text:
            self._told[name] = text
            log.warning("%s", text)
