"""What tracing costs: the tracer itself, and workers and server beside it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Literal

import pytest
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span

from eventq import NewJob, Queue

from .ledgers import NAMES, drained
from .otlp import OtlpReceiver, ReceiverProcess
from .traced import cpu, tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

CALLER = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, TraceFlags(1))

#: Drains a queue and says what CPU it took. With an SDK that makes spans recordable when it is asked to.
WORKER = """
import asyncio, json, sys, time
from eventq import Queue, Worker

if sys.argv[3] == "traced":
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    trace.set_tracer_provider(TracerProvider(shutdown_on_exit=False))

async def process(job):
    return True

async def main(url, jobs):
    async with Queue("q", url=url) as queue:
        worker = Worker(queue, process, concurrency=100, max_jobs=jobs)
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu = time.perf_counter(), time.process_time()
        await worker.run()
        print(json.dumps([time.perf_counter() - began, time.process_time() - cpu]), flush=True)

try:
    import uvloop
    run = uvloop.run
except ImportError:
    run = asyncio.run
run(main(sys.argv[1], int(sys.argv[2])))
"""


async def fill(queue: Queue[Any, Any], jobs: int, *, traced: bool) -> None:
    """Add so many jobs, each as one call would, in a trace or outside of any."""
    for start in range(0, jobs, 500):
        new = [NewJob(NAMES[number % 3], number) for number in range(start, min(jobs, start + 500))]
        if traced:
            adds: list[asyncio.Task[Any]] = []
            for job in new:  # each in a trace of its own, as requests add them
                caller = SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, False, TraceFlags(1))
                with use_span(NonRecordingSpan(caller)):
                    adds.append(asyncio.ensure_future(queue.add(job.name, job.data)))
            await asyncio.gather(*adds)
        else:
            await queue.add_bulk(new)


async def drain(
    server: TestServer, jobs: int, *, traced: bool, ready: Callable[[], bool] | None = None
) -> tuple[float, float, float]:
    """Drain so many jobs; return the CPU seconds per job of server and worker, and jobs per second.

    ready: the drain begins when this is so: what a tracer reads of the adds is not part of it.
    """
    async with Queue("q", url=server.url) as queue:
        # What an earlier drain left behind would be evicted in this one.
        await queue.obliterate(force=True)
        await fill(queue, jobs, traced=traced)
        while ready is not None and not await asyncio.to_thread(ready):
            await asyncio.sleep(0.1)  # sleep-ok: a receiver gives no news
        process = _worker(server.url, jobs, "traced" if traced else "plain")
        assert process.stdout is not None and process.stdin is not None
        await asyncio.to_thread(process.stdout.readline)
        before = cpu(server.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        took, used = json.loads(await asyncio.to_thread(process.stdout.readline))
        server_used = cpu(server.pid) - before
        await asyncio.to_thread(process.communicate)
        await drained(queue)
    return server_used / jobs, used / jobs, jobs / took


@contextlib.contextmanager
def subprocess_that_is_busy() -> Generator[None]:
    """Keep a core busy while the block runs."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _worker(url: str, jobs: int, how: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", WORKER, url, str(jobs), how]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("attached", [False, True], ids=["context", "tracer"])
async def test_workers_and_server_beside_it(make_server: MakeServer, attached: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Draining traced jobs (with the tracer attached, or without) and plain ones in turn, five pairs: server and worker CPU per job
    at most 10 % more.

    The tracer is busy all the while, since a drain is ten times as fast: on two cores that alone makes everything else dearer. So
    beside the plain drain something else is busy too. Tracer and receiver still crowd caches as that does not, so the bound is
    wider there; what tracing takes of server and worker themselves the other case shows.
    """
    most = 1.25 if attached else 1.10
    server, jobs = make_server(), 40_000
    ratios: list[tuple[float, float]] = []
    with ReceiverProcess() as receiver:
        for pair in range(6):
            if attached:
                with subprocess_that_is_busy():
                    plain = await drain(server, jobs, traced=False)
                with tracer(server.url, receiver.environment(), queued=False, consumer=f"c{pair}") as process:
                    seen = receiver.counts()["spans"] + jobs
                    traced = await drain(server, jobs, traced=True, ready=lambda: receiver.counts()["spans"] >= seen)  # noqa: B023
                    process.kill()
            else:
                plain = await drain(server, jobs, traced=False)
                traced = await drain(server, jobs, traced=True)
            if pair:  # the first one warms up
                ratios.append((traced[0] / plain[0], traced[1] / plain[1]))
    server_ratio, worker_ratio = (statistics.median(each) for each in zip(*ratios, strict=True))
    with capsys.disabled():
        print(
            f"\nfive pairs of {jobs} jobs, traced / plain: server CPU {server_ratio:.3f} ({_span(ratios, 0)}), "
            f"worker CPU {worker_ratio:.3f} ({_span(ratios, 1)})"
        )
    assert server_ratio <= most
    assert worker_ratio <= most


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("mode", ["refuse", "hang"])
async def test_no_job_pays_for_a_collector_that_takes_nothing(
    make_server: MakeServer, mode: Literal["refuse", "hang"], capsys: pytest.CaptureFixture[str]
) -> None:
    """Draining traced jobs with the tracer attached, its collector taking everything and nothing in turn, five pairs: worker CPU per job
    within 5 %.
    """
    server, jobs = make_server(), 40_000
    ratios: list[tuple[float, float]] = []
    with ReceiverProcess() as taking, OtlpReceiver("grpc") as refusing:
        refusing.mode = mode
        for pair in range(6):
            used: list[tuple[float, float, float]] = []
            for receiver in (taking, refusing):
                with tracer(server.url, receiver.environment(), consumer=f"c{pair}") as process:
                    used.append(await drain(server, jobs, traced=True))
                    process.kill()
            if pair:
                ratios.append((used[1][0] / used[0][0], used[1][1] / used[0][1]))
    worker_ratio = statistics.median(ratio[1] for ratio in ratios)
    with capsys.disabled():
        print(f"\nfive pairs of {jobs} jobs, {mode} / accept: worker CPU {worker_ratio:.3f} ({_span(ratios, 1)})")
    assert worker_ratio <= 1.05


def _span(ratios: list[tuple[float, float]], index: int) -> str:
    values = [ratio[index] for ratio in ratios]
    return f"{min(values):.2f} to {max(values):.2f}"


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("kinds", "asked", "jobs"),
    [
        # How many a second is asked where the machine is quiet; here it is enough that all of them arrive.
        pytest.param("all", 0, 10_000, id="small"),
        pytest.param("all", 3_000, 40_000, id="full", marks=pytest.mark.full),
        pytest.param("process", 8_000, 40_000, id="process", marks=pytest.mark.full),
    ],
)
async def test_it_keeps_up(
    make_server: MakeServer, wait_until: WaitUntil, kinds: str, asked: int, jobs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """So many runs a second from a backlog: with `add`, `queued` and `process` spans, or with those of runs alone.

    Runs alone are what is left where the jobs were added in a bulk: one span for all of them.
    """
    server = make_server()
    with ReceiverProcess() as receiver:
        async with Queue("q", url=server.url) as queue:
            if kinds == "process":
                with use_span(NonRecordingSpan(CALLER)):
                    for start in range(0, jobs, 1000):
                        await queue.add_bulk([NewJob(NAMES[number % 3], number) for number in range(start, start + 1000)])
            else:
                await fill(queue, jobs, traced=True)
            arguments = [sys.executable, "-c", WORKER, server.url, str(jobs), "plain"]
            done = await asyncio.to_thread(
                subprocess.run, arguments, input="go\n", capture_output=True, text=True, timeout=120, check=False
            )
            assert done.returncode == 0, done.stderr
            expected = jobs + jobs // 1000 if kinds == "process" else 3 * jobs
            with tracer(server.url, receiver.environment(), queued=kinds == "all") as process:
                began, before = time.perf_counter(), cpu(process.pid)
                await wait_until(lambda: receiver.counts()["spans"] >= expected, 120, description=f"{expected} spans")
                took, used = time.perf_counter() - began, cpu(process.pid) - before
                assert 0 == await asyncio.to_thread(process.stop), process.log
            assert expected == receiver.counts()["spans"]
    with capsys.disabled():
        print(
            f"\n{jobs} runs, {expected} spans: {jobs / took:,.0f} runs a second, {used / jobs * 1e6:.0f} us of CPU a run, "
            f"{used / expected * 1e6:.0f} us a span"
        )
    assert jobs / took >= asked
