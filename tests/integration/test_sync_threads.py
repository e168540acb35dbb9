"""SyncQueue in threads, after forks and under interrupts: nothing lost, nothing doubled, nobody left waiting."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from os import environ
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import EventqError, JobNotFound, NewJob, QueueUnavailable, SyncQueue
from eventq.client import Server, SyncRunner
from eventq.commands.core import Verb
from eventq.events import AddedEvent, parse_entry
from eventq.scripts import load_script

from ..chaos.faults import Fault, Rule, calls_a_script
from ..chaos.proxy import FaultProxy
from .recorder import PATIENCE

if TYPE_CHECKING:
    from ..conftest import MakeServer
    from ..servers import TestServer

THREADS = 8


def added(redis_client: redis.Redis, queue: SyncQueue[Any, Any]) -> Counter[str]:
    """Return how often the stream says of each job that it was added."""
    entries: Any = redis_client.xrange(queue.context.keys["events"])
    fields = [{key.decode(): value.decode() for key, value in entry[1].items()} for entry in entries]
    events = [event for each in fields for event in parse_entry(queue.name, each)]
    return Counter(event.job_id for event in events if isinstance(event, AddedEvent))


def stored(redis_client: redis.Redis, queue: SyncQueue[Any, Any]) -> set[str]:
    """Return the ids of the jobs that are stored."""
    ids: Any = redis_client.hkeys(queue.context.keys["jobs"])
    return {job_id.decode() for job_id in ids}


def check_once(redis_client: redis.Redis, queue: SyncQueue[Any, Any], ids: list[str]) -> None:
    """Each of these jobs was added once and is stored, and no other."""
    assert len(ids) == len(set(ids))
    assert Counter(dict.fromkeys(ids, 1)) == added(redis_client, queue)
    assert set(ids) == stored(redis_client, queue)
    waiting: Any = redis_client.lrange(queue.context.keys["wait"], 0, -1)
    assert sorted(ids) == sorted(job_id.decode() for job_id in waiting)


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [4_000, pytest.param(20_000, marks=pytest.mark.full)])
def test_eight_threads_add_thousands_of_jobs(url: str, queue_name: str, redis_client: redis.Redis, number: int) -> None:
    """None is lost, none is there twice, each is its caller's own; and they share their calls."""
    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(THREADS) as pool:

        def add(thread: int) -> list[str]:
            jobs = [queue.add("j", [thread, n]) for n in range(number // THREADS)]
            assert [[thread, n] for n in range(number // THREADS)] == [job.data for job in jobs]
            return [job.id for job in jobs]

        began = time.perf_counter()
        ids = [job_id for some in pool.map(add, range(THREADS)) for job_id in some]
        seconds = time.perf_counter() - began
        print(f"{THREADS} threads: {number / seconds:,.0f} adds/s in {queue._producer._runner._number} calls")
        check_once(redis_client, queue, ids)
        assert queue._producer._runner._number < number / 2
        for job in queue.get_jobs("waiting", limit=500):
            assert [job.data] == [each.data for each in [queue.get_job(job.id)] if each]


def test_threads_add_in_order(url: str, queue_name: str) -> None:
    """A thread's jobs stand in line in the order in which it added them, whoever sent them."""
    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda thread: [queue.add("j", [thread, number]) for number in range(50)], range(THREADS)))
        line = [job.data for job in queue.get_jobs("waiting", limit=500, ascending=True)]
        for thread in range(THREADS):
            assert list(range(50)) == [number for owner, number in line if owner == thread]


def test_large_jobs_of_many_threads(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """What does not fit into one call of 1 MiB goes out in the next."""
    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(40) as pool:
        jobs = list(pool.map(lambda _: queue.add("j", "x" * 200_000), range(80)))
        check_once(redis_client, queue, [job.id for job in jobs])
        assert 16 <= queue._producer._runner._number


def test_adds_of_one_id_in_threads(url: str, queue_name: str) -> None:
    """Threads that add the same own id get the same job, and one is stored."""
    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(THREADS) as pool:
        jobs = list(pool.map(lambda n: queue.add("j", n, job_id=f"id-{n // THREADS}"), range(400)))
        assert 50 == queue.count() == len({job.id for job in jobs})
        for job in jobs:
            found = queue.get_job(job.id)
            assert found and found.data == job.data


def test_lost_replies(single_server: TestServer, queue_name: str, redis_client: redis.Redis) -> None:
    """Replies lost, requests sent twice, late ones: repeated by number, so that every add is stored once and none fails."""
    with FaultProxy(single_server.port, seed=4) as proxy, SyncQueue(queue_name, url=proxy.url) as queue:
        proxy.inject(
            Rule(Fault.LOSE_REPLY, 0.2, when=calls_a_script),
            Rule(Fault.DUPLICATE, 0.1, when=calls_a_script, keep_last=True),
            Rule(Fault.CUT_REPLY, 0.05, when=calls_a_script),
            Rule(Fault.LATE, 0.05, when=calls_a_script, seconds=0.05),
        )
        with ThreadPoolExecutor(THREADS) as pool:
            ids = [job.id for job in pool.map(lambda n: queue.add("j", n), range(400))]
            ids += [job.id for job in queue.add_bulk([NewJob("j", n) for n in range(1200)])]
        proxy.clear()
        sha = load_script("add_jobs").sha
        assert 10 < sum(proxy.by_script[fault, sha] for fault in (Fault.LOSE_REPLY, Fault.DUPLICATE, Fault.CUT_REPLY, Fault.LATE))
        check_once(redis_client, queue, ids)


def test_adds_through_restarts(make_server: MakeServer, queue_name: str) -> None:
    """A server that saves every write is killed while four threads add: what an add returned is stored, once, and none fails."""
    server = make_server("--appendonly", "yes", "--appendfsync", "always")
    with SyncQueue(queue_name, url=server.url) as queue, ThreadPoolExecutor(4) as pool:
        is_over = threading.Event()

        def add_until_over() -> list[str]:
            ids: list[str] = []
            while not is_over.is_set():
                ids.append(queue.add("j").id)
            return ids

        futures = [pool.submit(add_until_over) for _ in range(4)]
        for _ in range(3):
            queue.get_jobs(["waiting", "delayed"])
            server.kill()
            server.start()
            queue.add("j", job_id=f"own-{time.monotonic_ns()}")
        is_over.set()
        ids = [job_id for future in futures for job_id in future.result(PATIENCE)]
        with redis.Redis(host="127.0.0.1", port=server.port) as client:
            own = {job_id for job_id in stored(client, queue) if job_id.startswith("own-")}
            assert 3 == len(own) and 20 < len(ids)
            check_once(client, queue, [*ids, *own])


# --- interrupts -------------------------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """As KeyboardInterrupt, which pytest would take for its own."""


@contextmanager
def interrupts() -> Generator[None]:
    """Let SIGUSR2 raise in the main thread, wherever it is."""

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR2, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR2, before)


def strike() -> None:
    """Interrupt the main thread."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)


def test_an_interrupted_calls_reply_answers_no_other(single_server: TestServer, queue_name: str) -> None:
    """Ctrl-C while a reply is awaited: the next call gets its own answer, and the add that was sent is there once."""
    with FaultProxy(single_server.port) as proxy, SyncQueue(queue_name, url=proxy.url) as queue, interrupts():
        queue.add("check", 3)  # the server has the scripts now
        for call in (lambda: queue.add("j", 1), lambda: queue.add_bulk([NewJob("j", 2)]), lambda: queue.get_job("nobody")):
            queue.get_job_counts()
            proxy.inject(Rule(Fault.DELAY_REPLY, when=calls_a_script, seconds=10, times=1))
            timer = threading.Timer(0.15, strike)
            timer.start()
            with pytest.raises(Interrupted):
                call()
            timer.join()
            assert queue.is_paused() is False
            assert queue.get_job("nobody") is None
            assert queue.get_job(queue.add("check", 3).id)
            proxy.clear()
        assert [1, 2, 3, 3, 3, 3] == sorted(job.data for job in queue.get_jobs("waiting"))


class Striker:
    """A thread that interrupts the main thread so often, at any moment after it has said that it is ready."""

    def __init__(self, strikes: int) -> None:
        self.left = strikes
        #: Interrupts that struck in a destructor, where Python reports what is raised and goes on.
        self.swallowed = 0
        self.is_over = threading.Event()
        self.ready = threading.Event()
        self._random = Random(5)

    def run(self) -> None:
        """Strike until it is over."""
        while self.left and self.ready.wait(PATIENCE):
            self.ready.clear()
            self.is_over.wait(self._random.random() * 0.01)
            self.left -= 1
            strike()
        self.is_over.set()

    def call(self, call: Callable[[], object]) -> int:
        """Make a call again and again in the main thread until it is over; return how often it was interrupted."""
        interrupted = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "unraisablehook", self._report)
            while not self.is_over.is_set():
                try:
                    self.ready.set()
                    while not self.is_over.is_set():
                        call()
                except Interrupted:
                    interrupted += 1
        return interrupted + self.swallowed

    def _report(self, report: sys.UnraisableHookArgs) -> None:
        if report.exc_type is Interrupted:
            self.swallowed += 1
            self.ready.set()
        else:
            sys.__unraisablehook__(report)


# Cut short in the middle of redis-py's connecting, a socket is closed by whoever collects it.
cut_short = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@cut_short
def test_interrupts_at_any_moment(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Hundreds of interrupts of one thread, wherever it is: it goes on right after, the others never stop, no job is doubled."""
    striker = Striker(300)
    ids: list[str] = []
    unknown: list[str] = []

    def add_until_over() -> None:
        while not striker.is_over.is_set():
            try:
                ids.append(queue.add("other").id)
            except QueueUnavailable as error:
                unknown.append(str(error))

    def call() -> None:
        ids.append(queue.add("mine").id)
        assert queue.get_job("nobody") is None
        assert queue.is_paused() is False

    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(4) as pool, interrupts():
        futures = [pool.submit(each) for each in (striker.run, *[add_until_over] * 3)]
        interrupted = striker.call(call)
        for future in futures:
            future.result(PATIENCE)
        print(f"{interrupted} interrupts, {len(ids)} adds, {len(unknown)} whose sender was interrupted")
        assert 270 < interrupted <= 300
        assert all("was interrupted; whether it took effect is unknown" in said for said in unknown)
        times = added(redis_client, queue)
        assert {1} == set(times.values())
        assert set(times) == stored(redis_client, queue) >= set(ids)
        assert len(ids) == len(set(ids))


@cut_short
def test_interrupts_of_whoever_reads_for_all(url: str, queue_name: str) -> None:
    """A thread that waits for results is interrupted hundreds of times; the others keep their time, and miss no outcome."""
    striker = Striker(300)

    def wait_until_over() -> None:
        while not striker.is_over.is_set():
            with pytest.raises(TimeoutError):
                job.result(0.02)

    def call() -> None:
        with pytest.raises(TimeoutError):
            job.result(0.002)

    with SyncQueue(queue_name, url=url) as queue, ThreadPoolExecutor(8) as pool, interrupts():
        job = queue.add("late", delay=60)
        futures = [pool.submit(each) for each in (striker.run, *[wait_until_over] * 3)]
        assert 270 < striker.call(call) <= 300
        patient = [pool.submit(job.result) for _ in range(2)]
        for future in futures:
            future.result(PATIENCE)
        job.remove()
        for future in patient:
            with pytest.raises(JobNotFound):
                future.result(PATIENCE)
        assert {} == queue._results._waits


# --- forks ------------------------------------------------------------------------------------------------------------

FORKS = """
import faulthandler, os, signal, sys, threading, time
from eventq import NewJob, SyncQueue

faulthandler.register(signal.SIGALRM, chain=True)  # says where it hangs, and ends
signal.alarm(30)
queue = SyncQueue(sys.argv[1], url=sys.argv[2])  # loaded before the fork, and used
before = queue.add("before")
is_over = threading.Event()
counts = [0] * 4

def add(number):
    while not is_over.is_set():
        queue.add("parent", number)
        counts[number] += 1

def look(job):
    while not is_over.is_set():
        queue.get_job_counts()
        try:
            job.result(0.05)
        except TimeoutError:
            pass

def child():
    signal.alarm(20)
    jobs = [queue.add("child", number) for number in range(5)]
    threads = [threading.Thread(target=queue.add, args=("child",)) for _ in range(5)]
    for each in threads: each.start()
    for each in threads: each.join()
    queue.add_bulk([NewJob("child") for _ in range(5)])
    assert queue.get_job(before.id).name == "before"
    try:
        jobs[0].result(0.1)
    except TimeoutError:
        pass
    queue.close()

threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
threads += [threading.Thread(target=look, args=(before,)) for _ in range(3)]
for each in threads: each.start()
children = []
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    children.append(pid)
    time.sleep(0.01)  # sleep-ok: forks come at different moments of the calls
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
assert codes == [0] * 30, codes
is_over.set()
for each in threads: each.join()
print(sum(counts))
"""

SPAWNED = """
import multiprocessing, os, sys
from eventq import SyncQueue

queue = SyncQueue(os.environ["QUEUE"], url=os.environ["URL"])

def add(number):
    return queue.add("j", number).id

if __name__ == "__main__":
    queue.add("j", -1)
    for method in ("spawn", "forkserver", "fork"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert 20 == len(set(pool.map(add, range(20))))
    print(queue.count())
"""


def run(command: list[str], **environment: str) -> str:
    """Run a Python program; return what it says."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=60, check=False, env={**environ, **environment}
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_forks_while_threads_use_the_queue(url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """Thirty children forked in the middle of calls: each adds, reads and waits at once, the parent's threads never stop.

    Whatever lock a thread of the parent held, whatever reply was on its way, is none of the child's; no job is lost or doubled.
    """
    in_parent = int(run(["-c", FORKS, queue_name, url]))
    with SyncQueue(queue_name, url=url) as queue:
        times = added(redis_client, queue)
        assert {1} == set(times.values())
        assert set(times) == stored(redis_client, queue)
        assert 1 + in_parent + 30 * 15 == len(times)
        print(f"{in_parent} adds in the parent meanwhile")
        assert in_parent > 100


@pytest.mark.slow
def test_processes_of_every_start_method(url: str, queue_name: str, tmp_path: Path) -> None:
    """A queue of a module is usable in the processes of multiprocessing, however they are started."""
    program = tmp_path / "spawned.py"
    program.write_text(SPAWNED)
    assert "61" == run([str(program)], QUEUE=queue_name, URL=url).strip()


# --- connections ------------------------------------------------------------------------------------------------------


def test_a_runner_counts_the_wait_for_its_turn(single_server: TestServer, queue_name: str) -> None:
    """A blocking read holds a runner; who asks meanwhile waits for its turn, and then is answered."""
    runner = SyncRunner(Server(single_server.free_url))
    blocked: Verb[Any] = Verb(("BLPOP", f"{queue_name}:nothing", "0.3"), lambda reply: reply)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(runner.run_verb, blocked, block=0.3)
        assert "PONG" == runner.run_verb(Verb(("PING",), str))
        assert future.result() is None
    runner.close()


def test_stop_wakes_a_blocking_read(single_server: TestServer, queue_name: str) -> None:
    """What a thread waits for ends at once when another one stops the runner, not when the server's time is over."""
    with FaultProxy(single_server.port) as proxy, ThreadPoolExecutor(1) as pool:
        runner = SyncRunner(Server(proxy.url), client_name="sleeper")
        began = time.monotonic()
        future = pool.submit(runner.run_verb, Verb(("BLPOP", f"{queue_name}:nothing", "0"), str), block=20)
        deadline = time.monotonic() + PATIENCE
        while runner._busy is None and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        runner.close()
        with pytest.raises(EventqError):
            future.result(PATIENCE)
        assert time.monotonic() - began < PATIENCE
