"""A TCP fault proxy: stands between clients and one Redis, and loses, repeats, delays, cuts and swallows what it is told to.

It runs in a thread with an event loop of its own, so that a test which blocks its loop does not disturb it. It reads RESP
as far as is needed to know where a request begins and ends and which reply belongs to it. What it does is replayable:
each connection draws from a generator made of the seed and the connection's number.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .faults import STRIKE_REQUESTS, Ending, Fault, Request, Rule, Stroke

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
#: Seconds the proxy's own thread may take to start, to obey, to end.
_PATIENCE: Final = 10.0


class _Ended(Exception):
    """A pump has ended its connection."""


@dataclass(frozen=True, slots=True)
class _Expected:
    """A reply that the server owes: whether the client gets it, and what is to happen to it on the way."""

    stroke: Stroke | None = None
    is_swallowed: bool = False


async def read_frame(reader: asyncio.StreamReader) -> tuple[bytes, tuple[bytes, ...]]:
    """Read one RESP2 frame, nested as it may be. Returns it whole, and its bulk strings."""
    parts: list[bytes] = []
    bulks: list[bytes] = []
    missing = 1
    while missing:
        line = await reader.readuntil(b"\r\n")
        parts.append(line)
        missing -= 1
        kind = line[:1]
        if kind == b"*":
            missing += max(0, int(line[1:]))
        elif kind == b"$" and (size := int(line[1:])) >= 0:
            parts.append(await reader.readexactly(size + 2))
            bulks.append(parts[-1][:-2])
    return b"".join(parts), tuple(bulks)


class _Link:
    """One client's connection and its counterpart to the server: a pump each way."""

    def __init__(self, proxy: FaultProxy, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self._number = number
        self._random = Random(f"{proxy.seed}/{number}")
        self._client_reader, self._client = reader, writer
        self._writers = [writer]
        self._expected: deque[_Expected] = deque()
        self._last: Request | None = None
        #: What CLIENT SETNAME said.
        self.name = ""
        #: Nothing passes any more, not the end of a connection either: no peer is told.
        self.is_silent = False
        self.has_swallowed = False

    async def run(self) -> None:
        """Pump until either side ends; in silence until both have."""
        pumps: list[asyncio.Task[None]] = []
        try:
            self._server_reader, self._server = await asyncio.open_connection(self._proxy.host, self._proxy.upstream_port)
            self._writers.append(self._server)
            pumps = [asyncio.create_task(self._until_it_ends(pump)) for pump in (self._pump_requests(), self._pump_replies())]
            done, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self.is_silent:
                done, _ = await asyncio.wait(pumps)
            for pump in done:
                pump.result()
        except ConnectionError as error:
            self._proxy.log.append(f"{self}: no server: {error}")
        finally:
            for pump in pumps:
                pump.cancel()
            self.close()
            await asyncio.gather(*pumps, *(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    def close(self) -> None:
        """Close both sides. What a peer has not taken yet is dropped: one that does not read must not keep us."""
        for writer in self._writers:
            if writer.transport.get_write_buffer_size():
                writer.transport.abort()
            writer.close()

    def silence(self) -> None:
        """From now on swallow everything."""
        self.is_silent = True
        self._count(Fault.BLACK_HOLE)

    def drop_client(self, fault: Fault = Fault.CLIENT_VANISHES, request: Request | None = None) -> None:
        """Reset the client's connection, and leave the server's open as if the client were still there."""
        self.is_silent = self.has_swallowed = True
        _reset(self._client)
        self._count(fault, request)

    def __str__(self) -> str:
        return f"connection {self._number} {self.name}"

    async def _until_it_ends(self, pump: Coroutine[Any, Any, None]) -> None:
        # The end of a connection, whoever brought it about, is how a pump ends.
        with contextlib.suppress(_Ended, asyncio.IncompleteReadError, ConnectionError):
            await pump
        self.has_swallowed |= self.is_silent

    async def _pump_requests(self) -> None:
        while True:
            frame, words = await read_frame(self._client_reader)
            request = Request(frame, words, self.name)
            if request.new_name:
                self.name = request.new_name
                if self._proxy.swallows(self.name):
                    self.silence()
            if self.is_silent:
                self.has_swallowed = True
                continue
            stroke = self._proxy.decide(request, self._random)
            if stroke is None:
                await self._forward(request)
            else:
                await self._strike_request(stroke)
            self._last = request

    async def _pump_replies(self) -> None:
        while True:
            frame, _ = await read_frame(self._server_reader)
            # What nobody asked for, as the server's refusal of too many clients, passes.
            expected = self._expected.popleft() if self._expected else _Expected()
            if expected.stroke is not None and expected.stroke.rule.fault is Fault.LATE:
                return
            if self.is_silent:
                self.has_swallowed = True
            elif expected.stroke is not None:
                await self._strike_reply(expected.stroke, frame)
            elif not expected.is_swallowed:
                await _write(self._client, frame)

    async def _forward(self, request: Request, *, stroke: Stroke | None = None, is_swallowed: bool = False) -> None:
        self._expected.append(_Expected(stroke, is_swallowed))
        await _write(self._server, request.frame)

    async def _strike_request(self, stroke: Stroke) -> None:
        rule, request = stroke.rule, stroke.request
        if rule.fault in STRIKE_REQUESTS:
            self._count(rule.fault, request)
        match rule.fault:
            case Fault.LOSE_REQUEST:
                self._end(rule.then)
            case Fault.CUT_REQUEST:
                await _write(self._server, stroke.cut(request.frame))
                self._end(rule.then)
            case Fault.DUPLICATE:
                await self._forward(request, is_swallowed=rule.keep_last)
                await self._forward(request, is_swallowed=not rule.keep_last)
            case Fault.REPLAY:
                await self._forward(request)
                if self._last is not None and rule.when(self._last):
                    self._count(rule.fault, self._last)
                    await self._forward(self._last, is_swallowed=True)
            case Fault.LATE | Fault.CLIENT_VANISHES:
                self.drop_client(rule.fault, request)
                await asyncio.sleep(rule.seconds)  # sleep-ok: how late it is
                await self._forward(request, stroke=stroke)
            case Fault.DELAY_REQUEST:
                await asyncio.sleep(rule.seconds)  # sleep-ok: the delay is the fault
                await self._forward(request)
            case Fault.SPLIT_REQUEST:
                self._expected.append(_Expected())
                await _write_in_pieces(self._server, request.frame, rule)
            case _:
                await self._forward(request, stroke=stroke)

    async def _strike_reply(self, stroke: Stroke, frame: bytes) -> None:
        rule = stroke.rule
        self._count(rule.fault, stroke.request)
        match rule.fault:
            case Fault.SPLIT_REPLY:
                await _write_in_pieces(self._client, frame, rule)
            case Fault.DELAY_REPLY:
                await asyncio.sleep(rule.seconds)  # sleep-ok: the delay is the fault
                await _write(self._client, frame)
            case Fault.CUT_REPLY:
                await _write(self._client, stroke.cut(frame))
                self._end(rule.then)
            case _:
                self._end(rule.then)

    def _end(self, ending: Ending) -> None:
        if ending is Ending.SILENCE:
            self.is_silent = self.has_swallowed = True
            return
        if ending is Ending.RESET:
            _reset(self._client)
        raise _Ended

    def _count(self, fault: Fault, request: Request | None = None) -> None:
        self._proxy.counts[fault] += 1
        self._proxy.by_script[fault, request.script if request else ""] += 1
        self._proxy.log.append(f"{self}: {fault}{f': {request}' if request else ''}")


class FaultProxy:
    """A proxy on a free loopback port: `with FaultProxy(server.port, seed=1) as proxy: ... proxy.url`.

    Faults are set and taken back at any time, from any thread. `counts` says how often each struck, `log` the last of them
    in words.
    """

    def __init__(self, upstream_port: int, *, seed: int = 0, host: str = "127.0.0.1") -> None:
        self.host = host
        self.upstream_port = upstream_port
        self.seed = seed
        self.counts: Counter[Fault] = Counter()
        #: The same by the SHA-1 of the script that was called.
        self.by_script: Counter[tuple[Fault, str]] = Counter()
        self.log: deque[str] = deque(maxlen=200)
        self._rules: tuple[Rule, ...] = ()
        self._hole: Callable[[str], bool] | None = None
        self._links: dict[asyncio.Task[None], _Link] = {}
        self._broken: list[BaseException] = []
        self._accepted = 0
        self._is_up = threading.Event()
        self._socket = socket.create_server((host, 0))
        self.port: int = self._socket.getsockname()[1]
        # Named so that a test which does not close it fails.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="eventq-fault-proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"redis://{self.host}:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._is_up.wait(_PATIENCE), "the proxy did not start"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_PATIENCE)
        if self._broken:
            raise self._broken[0]

    def inject(self, *rules: Rule) -> None:
        """Let these rules strike too, from now on. Of several that would strike a request, the first does."""
        self._rules += rules

    def clear(self) -> None:
        """Let nothing strike any more. What is silent stays silent."""
        self._rules = ()

    def summary(self) -> str:
        """Say what was done, in words."""
        return ", ".join(f"{number} x {fault}" for fault, number in self.counts.most_common())

    def connections(self) -> list[str]:
        """Return the names of the connections that are open, silent ones included."""
        return self._obey(lambda: [link.name for link in self._links.values()])

    def blackhole(self, client: str | None = None, *, existing: bool = True, new: bool = True) -> None:
        """Swallow everything both ways, ends of connections too: of every client, or of those with this name."""

        def swallows(name: str) -> bool:
            return client is None or name == client

        def dig() -> None:
            self._hole = swallows if new else None
            for link in self._links.values():
                if existing and swallows(link.name):
                    link.silence()

        self._obey(dig)

    def vanish(self, client: str | None = None) -> None:
        """Let the clients of open connections vanish, every one or those with this name: the server is not told."""

        def drop() -> None:
            for link in self._links.values():
                if client is None or link.name == client:
                    link.drop_client()

        self._obey(drop)

    def heal(self, *, existing: bool = True) -> None:
        """End the black hole for new connections; `existing` too: those which swallowed nothing go on, the others close.

        Without `existing`, what is silent stays so for ever, as behind a firewall that has forgotten its connections.
        """

        def fill() -> None:
            self._hole = None
            for task, link in self._links.items():
                if existing and link.is_silent:
                    link.is_silent = False
                    if link.has_swallowed:
                        task.cancel()

        self._obey(fill)

    def swallows(self, name: str) -> bool:
        """Whether connections of this name are swallowed."""
        return self._hole is not None and self._hole(name)

    def decide(self, request: Request, chance: Random) -> Stroke | None:
        """Return the first rule that strikes this request. Draws once for every rule that may, so that it can be replayed."""
        for rule in self._rules:
            if rule.times == 0 or not rule.when(request):
                continue
            if rule.probability < 1 and chance.random() >= rule.probability:
                continue
            if rule.times is not None:
                rule.times -= 1
            return Stroke(rule, request, chance.random())
        return None

    def _obey(self, order: Callable[[], T]) -> T:
        async def work() -> T:
            return order()

        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(_PATIENCE)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await asyncio.start_server(self._accept, sock=self._socket)
        self._is_up.set()
        await self._stopping.wait()
        server.close()
        tasks = list(self._links)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._accepted += 1
        link = _Link(self, self._accepted, reader, writer)
        if self.swallows(""):
            link.silence()
        task = self._loop.create_task(link.run())
        self._links[task] = link
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._links.pop(task).close()  # a task that was cancelled before it began has closed nothing
        if not task.cancelled() and (error := task.exception()) is not None:
            self._broken.append(error)


async def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _write_in_pieces(writer: asyncio.StreamWriter, data: bytes, rule: Rule) -> None:
    for start in range(0, len(data), rule.size):
        await _write(writer, data[start : start + rule.size])
        await asyncio.sleep(rule.seconds)  # sleep-ok: a packet each


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a machine that lost power and came back: no FIN, but RST."""
    if writer.transport.is_closing():
        return
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
