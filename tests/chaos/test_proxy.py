"""The fault proxy itself, against a real server with a client that speaks bytes: each fault does what it says, replayably."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
import redis

from .faults import Ending, Fault, Rule, is_command, is_work
from .proxy import FaultProxy

if TYPE_CHECKING:
    from ..servers import TestServer

#: Long enough that only silence lasts so long; short enough to wait for it.
SILENCE = 0.15
PATIENCE = 5.0
INCR = is_command("INCR")


class RawClient:
    """A client that sends frames and reads what comes."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *requests: str) -> None:
        """Send requests, words parted by spaces, in one go."""
        self._socket.sendall(b"".join(map(frame, requests)))

    def read(self, size: int) -> bytes:
        """Read exactly so much; less if the connection ends."""
        data = b""
        while len(data) < size and (piece := self._socket.recv(size - len(data))):
            data += piece
        return data

    def ask(self, request: str, size: int) -> bytes:
        """Send a request and read so much of its reply."""
        self.send(request)
        return self.read(size)

    def hears_nothing(self) -> bool:
        """Whether the connection is open and silent."""
        self._socket.settimeout(SILENCE)
        try:
            return self._socket.recv(1) == b"never"
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(PATIENCE)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def frame(request: str) -> bytes:
    """Return a request as it goes over the wire."""
    words = request.encode().split()
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


@pytest.fixture
def proxy(server: TestServer) -> Iterator[FaultProxy]:
    """A proxy for the shared server."""
    with FaultProxy(server.port, seed=7) as proxy:
        yield proxy


Connect = Callable[[], RawClient]


@pytest.fixture
def connect(proxy: FaultProxy) -> Iterator[Connect]:
    """Connect to the proxy."""
    clients: list[RawClient] = []

    def connect() -> RawClient:
        clients.append(RawClient(proxy.port))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def key(queue_name: str) -> str:
    """A key of the test's own, deleted after it."""
    return f"{{{queue_name}}}"


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until it holds."""
    waiting = threading.Event()
    for _ in range(int(PATIENCE * 200)):
        if condition():
            return
        waiting.wait(0.005)
    pytest.fail("it never came to that")


def count(client: redis.Redis, key: str) -> int:
    """Return what INCR has made of a key."""
    text: Any = client.get(key)
    return int(text or 0)


def test_frames_of_every_kind_pass_unchanged(connect: Connect, key: str) -> None:
    """Pipelined requests, nested, empty and null replies, errors, large and binary bulks: to the byte as without a proxy."""
    client = connect()
    blob = "x" * 300_000
    client.send(
        f"SET {key} {blob}", f"GET {key}", "NOSUCH", f"LRANGE {key}:none 0 -1", f"GET {key}:none", f"XADD {key}:s 1-1 a b"
    )
    client.send(f"XREAD STREAMS {key}:s 0", f"SET {key} 1", "ECHO \r\n", "PING")
    stream = f"{key}:s".encode()
    expected = [
        b"+OK\r\n",
        b"$300000\r\n" + blob.encode() + b"\r\n",
        b"-ERR unknown command",
    ]
    assert expected[0] + expected[1] == client.read(len(expected[0] + expected[1]))
    assert client.read(len(expected[2])).startswith(b"-ERR unknown command")
    rest = b"*0\r\n$-1\r\n$3\r\n1-1\r\n*1\r\n*2\r\n$%d\r\n%s\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n+OK\r\n" % (
        len(stream),
        stream,
    )
    tail = b""
    while not tail.endswith(b"+PONG\r\n"):
        tail += client.read(1)
    assert rest in tail


@pytest.mark.parametrize("then", list(Ending))
@pytest.mark.parametrize(("fault", "done"), [(Fault.LOSE_REQUEST, 0), (Fault.LOSE_REPLY, 1)])
def test_what_is_lost(
    proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str, fault: Fault, done: int, then: Ending
) -> None:
    """A lost request has no effect, one whose reply is lost has; the connection is closed, reset or silent, the next one is not."""
    proxy.inject(Rule(fault, times=1, when=INCR, then=then))
    client = connect()
    assert b"+PONG\r\n" == client.ask("PING", 7)
    client.send(f"INCR {key}")
    match then:
        case Ending.CLOSE:
            assert b"" == client.read(1)
        case Ending.RESET:
            with pytest.raises(ConnectionResetError):
                client.read(1)
        case Ending.SILENCE:
            assert client.hears_nothing()
            client.send("PING")
            assert client.hears_nothing()
    assert done == count(redis_client, key)
    assert b":%d\r\n" % (done + 1) == connect().ask(f"INCR {key}", 4)
    assert {fault: 1} == proxy.counts


@pytest.mark.parametrize(("keep_last", "seen"), [(False, b":1\r\n"), (True, b":2\r\n")])
def test_a_request_sent_twice(
    proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str, keep_last: bool, seen: bytes
) -> None:
    """The server runs it twice, the client gets one reply, the first or the last, and then those of its later requests."""
    proxy.inject(Rule(Fault.DUPLICATE, times=1, when=INCR, keep_last=keep_last))
    client = connect()
    client.send(f"INCR {key}", "PING", f"INCR {key}")
    assert seen + b"+PONG\r\n:3\r\n" == client.read(15)
    assert (3, {Fault.DUPLICATE: 1}) == (count(redis_client, key), proxy.counts)


def test_an_earlier_request_sent_again(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """After a request the one before it arrives once more; the client gets nothing of it."""
    client = connect()
    assert b":5\r\n" == client.ask(f"INCRBY {key} 5", 4)
    proxy.inject(Rule(Fault.REPLAY, times=1))
    client.send(f"INCR {key}", f"GET {key}")
    assert b":6\r\n$2\r\n11\r\n" == client.read(12)
    assert {Fault.REPLAY: 1} == proxy.counts


def test_a_late_request(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """The client is cut off at once; what it asked for arrives after what it asked for on another connection."""
    proxy.inject(Rule(Fault.LATE, times=1, when=is_command("SET"), seconds=0.1))
    client = connect()
    client.send(f"SET {key} late")
    with pytest.raises(ConnectionResetError):
        client.read(1)
    assert b"+OK\r\n" == connect().ask(f"SET {key} soon", 5)
    wait_for(lambda: redis_client.get(key) == b"late")
    wait_for(lambda: len(proxy.connections()) == 1)


@pytest.mark.parametrize("fault", [Fault.DELAY_REQUEST, Fault.DELAY_REPLY])
def test_delays(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str, fault: Fault) -> None:
    """The reply comes late, and what comes after it is not overtaken; the request has arrived before it, or not."""
    proxy.inject(Rule(fault, times=1, when=INCR, seconds=4 * SILENCE))
    client = connect()
    client.send(f"INCR {key}", "PING")
    assert client.hears_nothing()
    assert (1 if fault is Fault.DELAY_REPLY else 0) == count(redis_client, key)
    assert b":1\r\n+PONG\r\n" == client.read(11)


@pytest.mark.parametrize("fault", [Fault.SPLIT_REQUEST, Fault.SPLIT_REPLY])
def test_split_frames_arrive_whole(proxy: FaultProxy, connect: Connect, key: str, fault: Fault) -> None:
    """A frame that travels byte by byte is the same frame, and the next one as well."""
    proxy.inject(Rule(fault, size=1))
    client = connect()
    client.send(f"SET {key} {'y' * 500}", f"GET {key}", "PING")
    assert b"+OK\r\n$500\r\n" + b"y" * 500 + b"\r\n+PONG\r\n" == client.read(520)
    assert {fault: 3} == proxy.counts


def test_a_request_cut_in_the_middle(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """The server gets a part, so does nothing; the client sees the end of the connection."""
    size = len(frame(f"INCR {key}"))
    for at in range(1, size):
        proxy.inject(Rule(Fault.CUT_REQUEST, times=1, when=INCR, at=at))
        assert b"" == connect().ask(f"INCR {key}", 1)
    assert 0 == count(redis_client, key)
    assert {Fault.CUT_REQUEST: size - 1} == proxy.counts


def test_a_reply_cut_in_the_middle(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """The server has done it; the client gets a part of the reply, then the end of the connection."""
    redis_client.set(key, "abcdef")
    proxy.inject(Rule(Fault.CUT_REPLY, when=is_command("GET"), at=6))
    assert b"$6\r\nab" == connect().ask(f"GET {key}", 100)
    proxy.clear()
    proxy.inject(Rule(Fault.CUT_REPLY))
    assert 1 <= len(connect().ask(f"GET {key}", 100)) < 12


def test_a_client_that_vanishes(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """Its connection is reset; the server still holds it, blocked, and what comes for it is lost."""
    proxy.inject(Rule(Fault.CLIENT_VANISHES, times=1, when=is_command("BLPOP")))
    client = connect()
    assert b"+OK\r\n" == client.ask("CLIENT SETNAME vanishing", 5)
    client.send(f"BLPOP {key} 0")
    with pytest.raises(ConnectionResetError):
        client.read(1)
    wait_for(lambda: "vanishing" in names(redis_client))
    redis_client.rpush(key, "lost")
    wait_for(lambda: not redis_client.exists(key))
    proxy.heal()
    wait_for(lambda: "vanishing" not in names(redis_client))


def names(client: redis.Redis) -> list[str]:
    """Return the names of the connections the server has."""
    listed: Any = client.client_list()
    return [each["name"] for each in listed]


def test_open_connections_whose_clients_vanish(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis) -> None:
    """By name: the one client is reset, the other is not, and the server has both."""
    clients = {name: connect() for name in ("one", "two")}
    for name, client in clients.items():
        assert b"+OK\r\n" == client.ask(f"CLIENT SETNAME {name}", 5)
    proxy.vanish("one")
    with pytest.raises(ConnectionResetError):
        clients["one"].read(1)
    assert b"+PONG\r\n" == clients["two"].ask("PING", 7)
    assert {"one", "two"} <= set(names(redis_client))
    assert ["one", "two"] == proxy.connections()


def test_a_black_hole_and_its_end(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis, key: str) -> None:
    """Nothing passes, for connections old and new; healed, those which lost nothing go on and the others are closed."""
    idle, busy = connect(), connect()
    for client in (idle, busy):
        assert b"+PONG\r\n" == client.ask("PING", 7)
    proxy.blackhole()
    late = connect()
    for client in (busy, late):
        client.send(f"INCR {key}")
        assert client.hears_nothing()
    proxy.heal()
    assert (b"", b"") == (busy.read(1), late.read(1))
    assert b":1\r\n" == idle.ask(f"INCR {key}", 4)
    assert b":2\r\n" == connect().ask(f"INCR {key}", 4)
    assert {Fault.BLACK_HOLE: 3} == proxy.counts


def test_a_black_hole_for_some(proxy: FaultProxy, connect: Connect, redis_client: redis.Redis) -> None:
    """By name, for existing connections or new ones; healed for new ones only, the old stay silent and open on the server."""
    clients = {name: connect() for name in ("one", "two")}
    for name, client in clients.items():
        assert b"+OK\r\n" == client.ask(f"CLIENT SETNAME {name}", 5)
    proxy.blackhole("one", existing=False)
    assert b"+PONG\r\n" == clients["one"].ask("PING", 7)
    late = connect()
    late.send("CLIENT SETNAME one")
    assert late.hears_nothing()
    proxy.blackhole("one", new=False)
    clients["one"].send("PING")
    assert clients["one"].hears_nothing()
    proxy.heal(existing=False)
    assert clients["one"].hears_nothing()
    clients["one"].close()
    assert b"+PONG\r\n" == clients["two"].ask("PING", 7)
    assert {"one", "two"} <= set(names(redis_client))
    proxy.heal()
    wait_for(lambda: "one" not in names(redis_client))
    assert b"+PONG\r\n" == clients["two"].ask("PING", 7)


def strokes(server: TestServer, seed: int) -> tuple[list[str], list[bytes]]:
    """Let faults strike at random over many connections; return what was done, and what the client saw."""
    seen: list[bytes] = []
    with FaultProxy(server.port, seed=seed) as proxy:
        proxy.inject(Rule(Fault.LOSE_REPLY, 0.2), Rule(Fault.CUT_REPLY, 0.2), Rule(Fault.DUPLICATE, 0.2, when=is_work))
        for _ in range(15):
            client = RawClient(proxy.port)
            for _ in range(4):
                try:
                    client.send("ECHO 0123456789")
                    seen.append(client.read(17))
                except ConnectionError:
                    seen.append(b"broken")
            client.close()
        return list(proxy.log), seen


def test_the_same_seed_makes_the_same_decisions(server: TestServer) -> None:
    """The same faults strike the same requests at the same bytes; with another seed others."""
    log, _ = strokes(server, 1)
    assert log == strokes(server, 1)[0]
    assert log != strokes(server, 2)[0]
    assert {"lost", "cut", "twice"} <= {word.rstrip(":") for line in log for word in line.split()}


def test_nothing_is_left_behind(server: TestServer, redis_client: redis.Redis) -> None:
    """Closed in the midst of everything, it leaves no thread, no socket and no connection at the server."""
    before = set(threading.enumerate())
    with FaultProxy(server.port) as proxy:
        proxy.inject(Rule(Fault.LOSE_REPLY, when=is_command("GET"), then=Ending.SILENCE), Rule(Fault.LATE, when=INCR, seconds=60))
        clients = [RawClient(proxy.port) for _ in range(3)]
        for client, request in zip(clients, ("BLPOP left-behind 0", "GET left-behind", "INCR left-behind"), strict=True):
            client.send("CLIENT SETNAME left-behind", request)
        wait_for(lambda: names(redis_client).count("left-behind") == 3 and len(proxy.counts) == 2)
    for client in clients:
        client.close()
    wait_for(lambda: "left-behind" not in names(redis_client))
    assert set(threading.enumerate()) <= before
    with pytest.raises(ConnectionRefusedError):
        RawClient(proxy.port)


def test_without_a_server_clients_are_sent_away(server: TestServer) -> None:
    """A server that is down looks through the proxy like a connection that ends at once."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    with FaultProxy(port) as proxy:
        client = RawClient(proxy.port)
        assert b"" == client.read(1)
        client.close()
