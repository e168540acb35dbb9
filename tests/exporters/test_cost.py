"""What the exporter costs: CPU per event, scrapes of many queues, memory under hostile names; and its workers and server beside it."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import NewJob, Queue
from eventq_prometheus import PrometheusExporter
from eventq_prometheus.serving import bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig

from ..servers import free_port
from .ledgers import NAMES, drained
from .scrapes import ExporterProcess, fetch, scrape, total

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

#: Reads a backlog to its end in a process of its own: how many events it had seen before and has then, seconds, CPU seconds.
READER = """
import asyncio, json, sys, time
from eventq_prometheus import PrometheusExporter

async def main(url, last):
    exporter = PrometheusExporter(url=url)
    began, cpu = time.perf_counter(), time.process_time()
    async with exporter:
        while exporter._tallies["big"].seq < last:
            await asyncio.sleep(0.01)  # sleep-ok: an exporter gives no news, and this only looks
        took, used = time.perf_counter() - began, time.process_time() - cpu
        print(json.dumps([sum(exporter._tallies["big"].freeze().events.values()), took, used]))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

#: Drains a queue and says what CPU it took.
WORKER = """
import asyncio, json, sys, time
from eventq import Queue, Worker

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

#: Feeds a tally hostile names and types, and says how the memory grew.
HOSTILE = """
import json, sys
from eventq import EventBatch
from eventq_prometheus.tally import Tally

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def feed(tally, kind, facts):
    tally.received(EventBatch("q", kind, tally.seq + 1, len(facts), 1_800_000_000_000, json.dumps(facts), 0))

tally = Tally("q", "", by_name=True, overflowed=lambda label: None)
made = 0
def batch(number):
    name = f"n{number}" + "x" * 100
    return {"name": name, "error": {"type": f"E{number}" + "y" * 200}, "schedule_id": name, "count": 1, "ran_ms": number}
for start in range(0, 20_000, 100):
    feed(tally, "added", [batch(n) for n in range(start, start + 100)])
before = rss()
for start in range(0, int(sys.argv[1]), 100):
    kind = ("added", "retrying", "failed", "active", "schedule_missed")[start // 100 % 5]
    feed(tally, kind, [batch(n) for n in range(start, start + 100)])
print(json.dumps([rss() - before, len(tally.freeze().text)]))
"""


def run(program: str, *arguments: str) -> Any:
    """Run a program and return what it printed."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "events", [pytest.param(150_000, id="small"), pytest.param(1_000_000, id="full", marks=pytest.mark.full)]
)
async def test_a_backlog_is_read_fast(
    make_server: MakeServer, events: int, wait_until: WaitUntil, capsys: pytest.CaptureFixture[str]
) -> None:
    """150,000 events a second or more, for at most 6 us of CPU each."""
    server, jobs = make_server(), events // 3
    async with Queue("big", url=server.url) as queue:
        await queue.add("first")
        # It holds its place from here on: what it has not read is not trimmed while it is away.
        async with PrometheusExporter(url=server.url) as exporter:
            await wait_until(
                lambda: "big" in exporter._tallies and exporter._tallies["big"].seq == 1, description="the first event"
            )
        for _ in range(0, jobs, 1000):
            await queue.add_bulk([NewJob(NAMES[number % 3], number) for number in range(1000)])
        program = WORKER.replace('"q"', '"big"').replace("sys.stdin.readline()", "")
        await asyncio.to_thread(run, program, server.url, str(jobs // 1000 * 1000))
        with redis.Redis(port=server.port) as client:
            seq: Any = client.hget(queue.context.keys["meta"], "seq")
            last = int(seq)
    read, took, used = await asyncio.to_thread(run, READER, server.url, str(last))
    with capsys.disabled():
        print(f"\n{read} events: {read / took:,.0f} a second, {used / read * 1e6:.2f} us of CPU each")
    assert last == read > 0.99 * events
    assert used / read <= 6e-6
    # So fast where the machine is quiet, which is asked of the larger one only.
    assert events < 1_000_000 or read / took >= 150_000


@pytest.mark.full
@pytest.mark.timeout(900)
async def test_workers_and_server_beside_it(make_server: MakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Draining with the exporter attached and without, in turn, five pairs: server CPU per job at most 10 % more, worker CPU per job
    at most 5 % more, the exporter itself at most 6 us per event.
    """
    server, jobs = make_server(), 60_000
    ratios: list[tuple[float, float]] = []
    own: list[float] = []
    for pair in range(6):
        plain = await _drain(server, jobs)
        with ExporterProcess(server.url, free_port(), hold=10) as exporter:
            before, events = _cpu(exporter.pid), await _events(exporter.port)
            beside = await _drain(server, jobs)
            await asyncio.sleep(0.5)  # sleep-ok: what it reads last belongs to this drain
            own.append((_cpu(exporter.pid) - before) / (await _events(exporter.port) - events))
            exporter.stop()
        if pair:  # the first one warms up
            ratios.append((beside[0] / plain[0], beside[1] / plain[1]))
    server_ratio, worker_ratio = (statistics.median(each) for each in zip(*ratios, strict=True))
    with capsys.disabled():
        print(
            f"\nfive pairs of {jobs} jobs: server CPU {server_ratio:.3f} ({min(r[0] for r in ratios):.2f} to {max(r[0] for r in ratios):.2f}), "
            f"worker CPU {worker_ratio:.3f} ({min(r[1] for r in ratios):.2f} to {max(r[1] for r in ratios):.2f}), "
            f"exporter {statistics.median(own) * 1e6:.2f} us per event"
        )
    assert server_ratio <= 1.10
    assert worker_ratio <= 1.05
    assert statistics.median(own) <= 6e-6


async def _drain(server: TestServer, jobs: int) -> tuple[float, float]:
    """Drain so many jobs; return the CPU seconds of server and worker."""
    async with Queue("q", url=server.url) as queue:
        await queue.obliterate(force=True)
        for _ in range(0, jobs, 1000):
            await queue.add_bulk([NewJob(NAMES[number % 3], number) for number in range(1000)])
        process = _worker(server.url, jobs)
        assert process.stdout is not None and process.stdin is not None
        await asyncio.to_thread(process.stdout.readline)
        before = _cpu(server.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        line = await asyncio.to_thread(process.stdout.readline)
        used = _cpu(server.pid) - before
        await asyncio.to_thread(process.communicate)
        await drained(queue)
    return used / jobs, json.loads(line)[1] / jobs


def _worker(url: str, jobs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, url, str(jobs)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


async def _events(port: int) -> float:
    return total(await scrape(port, {}), "eventq_events_processed_total")


def _cpu(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


@pytest.mark.timeout(120)
async def test_a_scrape_of_many_queues(
    make_server: MakeServer, wait_until: WaitUntil, capsys: pytest.CaptureFixture[str]
) -> None:
    """100 queues of 20 job names cost less than a second of CPU."""
    server = make_server()
    queues = [Queue(f"q{number}", url=server.url) for number in range(100)]
    for queue in queues:
        await queue.add_bulk([NewJob(f"name-{number}", number) for number in range(20)])
    async with PrometheusExporter(url=server.url) as exporter:
        sock = bind(parse_listen("127.0.0.1:0"))
        serving = asyncio.create_task(serve(exporter, sock, WebConfig()))
        port = sock.getsockname()[1]
        await wait_until(
            lambda: len(exporter._tallies) == 100 and all(tally.is_based for tally in exporter._tallies.values()), timeout=30
        )
        times: list[float] = []
        cpus: list[float] = []
        body = b""
        for _ in range(5):
            began, cpu = time.perf_counter(), time.process_time()
            _, _, body = await asyncio.to_thread(fetch, port)
            times.append(time.perf_counter() - began)
            cpus.append(time.process_time() - cpu)
        serving.cancel()
        await asyncio.wait([serving])
        sock.close()
    for queue in queues:
        await queue.close()
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    with capsys.disabled():
        print(
            f"\n100 queues of 20 names: {len(lines)} series, {statistics.median(times):.3f} s ({min(times):.3f} to {max(times):.3f}), "
            f"{statistics.median(cpus):.3f} s of CPU"
        )
    assert sum("eventq_jobs_added_total{" in line for line in lines) == 2000
    assert min(cpus) <= 1


@pytest.mark.parametrize("names", [pytest.param(100_000, id="small"), pytest.param(1_000_000, id="full", marks=pytest.mark.full)])
def test_hostile_names_take_no_memory(names: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A million names of jobs, errors and schedules: the series stay under the cap, memory grows by less than 20 MiB."""
    grown, saved = run(HOSTILE, str(names))
    with capsys.disabled():
        print(f"\n{names} hostile names: {grown / 2**20:.1f} MiB more, {saved / 1024:.0f} KiB saved")
    assert grown < 20 * 2**20
