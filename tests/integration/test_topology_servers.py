"""The tests' own cluster, sentinels and TLS server do what tests of the product rely on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

import pytest
import redis
from redis.backoff import NoBackoff
from redis.exceptions import AskError, AuthenticationError, ClusterDownError, MovedError, ResponseError, TryAgainError
from redis.retry import Retry

from ..topologies import Certificate, RoamingRedis, TestCluster, TestSentinel, TlsServer, slot_of

if TYPE_CHECKING:
    from ..servers import ServerKind

#: What a queue with 10,000 jobs is to a cluster: a few large keys in one slot.
JOBS = 10_000

T = TypeVar("T")


@pytest.fixture(scope="module")
def formed(server_kind: ServerKind) -> Iterator[tuple[TestCluster, float]]:
    """Three primaries, and how many seconds it took to make a cluster of them."""
    with closing(TestCluster(server_kind)) as cluster:
        seconds, _ = timed(cluster.start)
        yield cluster, seconds


@pytest.fixture(scope="module")
def cluster(formed: tuple[TestCluster, float]) -> TestCluster:
    """A cluster for tests that leave it whole."""
    return formed[0]


def timed(act: Callable[[], T]) -> tuple[float, T]:
    """Return how many seconds it took, and what it returned."""
    began = time.monotonic()
    value = act()
    return time.monotonic() - began, value


def test_a_cluster_forms_at_once(formed: tuple[TestCluster, float]) -> None:
    """Every slot has an owner and every node serves, seconds after the first start."""
    cluster, seconds = formed
    print(f"a cluster of three {cluster.kind} primaries forms: {seconds:.2f} s")
    assert 3 == len(cluster.peers()) == len({cluster.node_of(slot) for slot in (0, 8_000, 16_383)})
    assert cluster.url == "cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    for name in ("one", "two", "three", "four"):
        assert cluster.node_of(name).ask("SET", f"eventq:{{{name}}}:{name}:meta", 1)
    assert seconds < 10


def test_a_client_finds_its_way(cluster: TestCluster) -> None:
    """The plain client of one node asks another for its keys; redis-py's cluster client sees the same cluster."""
    first, other = cluster.nodes[0], cluster.nodes[1]
    key = next(name for name in map(str, range(100)) if cluster.node_of(name) is other)
    with pytest.raises(MovedError):
        first.ask("GET", key)
    with RoamingRedis(port=first.port) as roaming, redis.RedisCluster(host="127.0.0.1", port=first.port) as routed:
        assert roaming.set(key, 1) and b"1" == roaming.get(key) == routed.get(key)


def test_a_slot_moves_with_its_keys(cluster: TestCluster) -> None:
    """A queue's worth of 10,000 jobs goes to another node, all of it, and the old owner says where."""
    source = cluster.node_of("moves")
    target = next(node for node in cluster.nodes if node is not source)
    for column in ("jobs", "runs", "completed"):
        for first in range(0, JOBS, 1_000):
            pairs = [word for number in range(first, first + 1_000) for word in (number, f"{number:020}" * 10)]
            if column == "completed":
                source.ask("ZADD", "{moves}:completed", *(part for word in pairs[::2] for part in (word, word)))
            else:
                source.ask("HSET", f"{{moves}}:{column}", *pairs)
    seconds, _ = timed(lambda: cluster.move_slot("moves", target))
    print(f"a slot with {JOBS:,} jobs moves ({cluster.kind}): {seconds:.2f} s")
    assert target is cluster.node_of("moves")
    assert [JOBS, JOBS] == [target.ask("HLEN", f"{{moves}}:{column}") for column in ("jobs", "runs")]
    assert JOBS == target.ask("ZCARD", "{moves}:completed")
    with pytest.raises(MovedError) as moved:
        source.ask("HLEN", "{moves}:jobs")
    assert (slot_of("moves"), target.port) == (moved.value.slot_id, moved.value.port)


def test_a_slot_that_is_moving_is_half_there(cluster: TestCluster) -> None:
    """Between `begin_move` and `end_move` a script over keys on both sides is told to try again, one over moved keys to ask."""
    source = cluster.node_of("half")
    target = next(node for node in cluster.nodes if node is not source)
    source.ask("MSET", "{half}:a", 1, "{half}:b", 2)
    cluster.begin_move("half", target)
    assert 1 == cluster.move_keys("half", target, 1)
    with pytest.raises(TryAgainError):
        source.ask("MGET", "{half}:a", "{half}:b")
    assert 1 == cluster.move_keys("half", target)
    with pytest.raises(AskError):
        source.ask("MGET", "{half}:a", "{half}:b")
    cluster.end_move("half", target)
    assert ["1", "2"] == target.ask("MGET", "{half}:a", "{half}:b")


@pytest.mark.full
def test_a_cluster_without_a_node_is_down_until_it_is_back(cluster: TestCluster) -> None:
    """A killed primary takes the cluster down; started again it has its slots again."""
    lost = cluster.node_of("lost")
    cluster.kill(lost)
    survivor = next(node for node in cluster.nodes if node is not lost)
    assert not cluster._is_whole()
    key = next(name for name in map(str, range(100)) if cluster.node_of(name) is survivor)
    # Until the survivors notice, they serve their own slots.
    with pytest.raises(ClusterDownError):
        while survivor.ask("SET", key, 1):
            continue
    cluster.restart(lost)
    assert lost is cluster.node_of("lost") and survivor.ask("SET", key, 1)


@pytest.mark.full
def test_a_replica_takes_over(server_kind: ServerKind) -> None:
    """With replicas: one is told to take over and loses nothing; the next primary is killed and replaced by itself."""
    with TestCluster(server_kind, replicas=1) as cluster:
        before = cluster.node_of("queue")
        before.ask("SET", "{queue}", "kept")
        told, after = timed(lambda: cluster.failover(before))
        assert after is cluster.node_of("queue") and [before] == cluster.replicas_of(after)
        assert "kept" == after.ask("GET", "{queue}")
        cluster.kill(after)
        alone, _ = timed(cluster.wait_until_whole)
        assert before is cluster.node_of("queue") and "kept" == before.ask("GET", "{queue}")
        cluster.restart(after)
        assert [after] == cluster.replicas_of(before)
    print(f"a replica takes over ({server_kind}): told to in {told:.2f} s, by itself in {alone:.2f} s")


@pytest.mark.full
@pytest.mark.parametrize("password", [None, "pw-of-data"])
def test_sentinels_name_another_primary(server_kind: ServerKind, password: str | None) -> None:
    """A failover and the death of a primary each give another one that has what was written; the old ones follow it."""
    secret = password and "pw-of-sentinels"
    with TestSentinel(server_kind, password=password, sentinel_password=secret) as sentinel:
        assert sentinel.url.startswith(f"sentinel://{f':{password}@' if password else ''}127.0.0.1:{sentinel.sentinels[0].port},")
        first = sentinel.primary()
        first.ask("SET", "key", "kept")
        assert 1 == first.ask("WAIT", 1, 5_000)
        asked, second = timed(sentinel.failover)
        assert second is not first and [first] == sentinel.replicas() and first.follows(second)
        second.ask("SET", "then", 1)
        assert 1 == second.ask("WAIT", 1, 5_000) and "kept" == first.ask("GET", "key")
        assert second is sentinel.kill_primary()
        killed, _ = timed(sentinel.wait_until_whole)
        assert first is sentinel.primary() and "kept" == first.ask("GET", "key")
        sentinel.restart(second)
        assert second.follows(first)
    print(f"sentinels name another primary ({server_kind}): asked in {asked:.2f} s, after a kill in {killed:.2f} s")


def test_passwords_are_asked_for(server_kind: ServerKind) -> None:
    """Data nodes and sentinels refuse whoever does not say their password."""
    with TestSentinel(server_kind, password="data", sentinel_password="sentinels") as sentinel:
        assert sentinel.url.endswith("/main/0?sentinel_password=sentinels")
        for node, wrong in ((sentinel.nodes[0], "sentinels"), (sentinel.sentinels[0], "data")):
            for password in (None, wrong):
                with (
                    redis.Redis(port=node.port, password=password, retry=Retry(NoBackoff(), 0)) as client,
                    pytest.raises((AuthenticationError, ResponseError)),
                ):
                    client.ping()


@pytest.mark.full
@pytest.mark.timeout(300)
def test_failovers_can_be_repeated(server_kind: ServerKind) -> None:
    """Ten failovers in a row, with two replicas, each losing nothing that was replicated."""
    with TestSentinel(server_kind, replicas=2) as sentinel:
        seconds: list[float] = []
        for number in range(10):
            before = sentinel.primary()
            before.ask("SET", "number", number)
            before.ask("WAIT", 2, 5_000)
            took, after = timed(sentinel.failover)
            assert after is not before and str(number) == after.ask("GET", "number")
            seconds.append(took)
    print(f"ten failovers by sentinels ({server_kind}): {min(seconds):.2f} to {max(seconds):.2f} s each")


def pings(url: str) -> bool:
    """Return whether a client that checks certificates gets through."""
    with redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return bool(client.ping())
        except redis.ConnectionError:
            return False


@pytest.mark.usefixtures("tls_tools")
@pytest.mark.parametrize(("certificate", "through"), [("valid", True), ("expired", False), ("stranger", False)])
def test_only_a_valid_certificate_is_trusted(certificate: Certificate, through: bool) -> None:
    """A client gets through to a server with the right certificate only, and to no server in plain text."""
    with TlsServer(certificate=certificate) as server:
        assert through is pings(server.url)
        with redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0)) as plain, pytest.raises(redis.ConnectionError):
            plain.ping()


@pytest.mark.usefixtures("tls_tools")
def test_a_client_may_have_to_show_a_certificate() -> None:
    """A server that asks its clients for a certificate lets in those who have one of the same authority."""
    with TlsServer(client_auth=True) as server:
        assert [False, True] == [pings(server.url), pings(server.client_url)]


def test_nothing_is_left_behind(server_kind: ServerKind) -> None:
    """After `close` no process runs and no directory is there, whatever state the nodes were in."""
    with TestCluster(server_kind, primaries=3) as cluster:
        pids = [node.pid for node in cluster.nodes]
        cluster.kill(cluster.nodes[0])
        cluster.nodes[1].freeze()
    assert 3 == len(pids) and not any(node.is_running or node.directory.exists() for node in cluster.nodes)
