"""The workloads: each runs one peer once and returns its figures by name."""

import time

from benchmarks.harness import Harness, Mark, RunFailed
from benchmarks.peers import Peer

Figures = dict[str, float]

#: The share of a backlog that warms a peer up: compilers have run and eventq's retention trims from here on.
WARM_SHARE = 0.08
#: Seconds a window lasts at most, and seconds a worker is left alone before it counts as idle.
WINDOW = 3.0
SETTLE = 3.0


def drain(harness: Harness, peer: Peer, *, job: str, concurrency: int, jobs: int) -> Figures:
    """Preload `jobs`, start one worker, measure from the warm mark for three seconds or to the end."""
    harness.flush()
    harness.produce(peer.producer or peer, "bulk", jobs, 0, job)
    with harness.working(peer, concurrency) as worker:
        first, last = harness.window(worker, int(jobs * WARM_SHARE), jobs, WINDOW)
    return _per_job(first, last)


def _per_job(first: Mark, last: Mark) -> Figures:
    jobs, wall = last.jobs - first.jobs, last.at - first.at
    before, after = first.server, last.server
    worker_cpu, server_cpu = last.worker_cpu - first.worker_cpu, after.server_cpu - before.server_cpu
    ours = worker_cpu + server_cpu + last.own_cpu - first.own_cpu
    return {
        "jobs": jobs,
        "rate": jobs / wall,
        "worker_us": worker_cpu / jobs * 1e6,
        "server_us": server_cpu / jobs * 1e6,
        "script_us": (after.script_us - before.script_us) / jobs,
        "script_calls": (after.script_calls - before.script_calls) / jobs,
        "commands": (after.commands - before.commands) / jobs,
        "reads": (after.reads - before.reads) / jobs,
        "bytes_in": (after.bytes_in - before.bytes_in) / jobs,
        "bytes_out": (after.bytes_out - before.bytes_out) / jobs,
        "others_cores": (last.machine_cpu - first.machine_cpu - ours) / wall,
    }


def produce(harness: Harness, peer: Peer, *, command: str, jobs: int, warm: int) -> Figures:
    """Time a producer that has warmed up on another queue; server figures include its warming."""
    harness.flush()
    before = harness.server.read()
    printed = harness.produce(peer, command, jobs, warm, "noop")
    after = harness.server.read()
    everything = jobs + warm
    return {
        "jobs": jobs,
        "rate": printed["n"] / printed["wall"],
        "client_us": printed["cpu"] / printed["n"] * 1e6,
        "server_us": (after.server_cpu - before.server_cpu) / everything * 1e6,
        "script_us": (after.script_us - before.script_us) / everything,
        "commands": (after.commands - before.commands) / everything,
        "reads": (after.reads - before.reads) / everything,
    }


def memory(harness: Harness, peer: Peer, *, jobs: int) -> Figures:
    """What a waiting job takes: used memory before and after, without the event stream."""
    harness.flush()
    harness.produce(peer, "bulk", 1, 0, "noop")
    harness.server.wait_until_alone()
    used, stream = harness.server.read().used_memory, harness.server.stream_bytes()
    harness.produce(peer, "bulk", jobs, 0, "noop")
    harness.server.wait_until_alone()
    used, stream = harness.server.read().used_memory - used, harness.server.stream_bytes() - stream
    return {"jobs": jobs, "bytes": (used - stream) / jobs, "stream_bytes": stream / jobs}


def idle(harness: Harness, peer: Peer, *, concurrency: int, seconds: float) -> Figures:
    """What a worker without work sends and burns, after it has run one job and settled."""
    harness.flush()
    harness.produce(peer, "bulk", 1, 0, "noop")
    with harness.working(peer, concurrency) as worker:
        if not harness.wait_for_jobs(worker, 1, time.perf_counter() + 20):
            raise RunFailed("the first job did not run in 20 s")
        time.sleep(SETTLE)
        before = harness.mark(worker)
        sent = harness.server.client_commands(seconds)
        after = harness.mark(worker)
    wall = after.at - before.at
    return {
        "seconds": wall,
        "requests": sent / seconds,
        # Ours among them: the INFO of the first mark, MONITOR and ECHO.
        "commands": (after.server.commands - before.server.commands - 3) / wall,
        "worker_ms": (after.worker_cpu - before.worker_cpu) / wall * 1e3,
        "server_ms": (after.server.server_cpu - before.server.server_cpu) / wall * 1e3,
    }
