"""Progress: the latest value wins, at most ten a second are written, and always before the outcome."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, Worker
from eventq.commands.work import Outcome, ProgressUpdate, settle_and_claim
from eventq.errors import InvalidJob, InvalidState
from eventq.events import ActiveEvent, CompletedEvent, FailedEvent, ProgressEvent
from eventq.limits import PROGRESS_BYTES

from .recorder import PATIENCE, Recorder, claim_silently

if TYPE_CHECKING:
    from ..conftest import MakeServer, WaitUntil
    from ..servers import TestServer

#: Values beyond any buffer: the first, the last, and one every tenth of a second between them.
BUSY = 0.35


async def test_a_number_and_an_object_are_told_and_kept(url: str, queue_name: str) -> None:
    """Both reach the event and stand in the job; who reports need not await it."""

    async def process(job: Job[Any]) -> None:
        if job.name == "awaited":
            await job.update_progress(12.5)
        else:
            job.update_progress({"step": "ü", "of": [1, None]})  # type: ignore[unused-awaitable]

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        jobs = [await queue.add("awaited"), await queue.add("not awaited")]
        for job in jobs:
            await job.result(PATIENCE)
        kept = [await queue.get_job(job.id) for job in jobs]
        await recorder.wait(CompletedEvent, 2)
    values = [12.5, {"step": "ü", "of": [1, None]}]
    assert values == [event.progress for event in recorder.of(ProgressEvent)]
    assert values == [job.progress for job in kept if job is not None]
    first = recorder.of(ProgressEvent)[0]
    assert (queue_name, jobs[0].id, "awaited", 1) == (first.queue, first.job_id, first.name, first.attempt)


def in_a_thread(job: Job[Any]) -> int:
    """Report all the time, from a plain function."""
    end, value = time.monotonic() + BUSY, 0
    while time.monotonic() < end:
        value += 1
        job.update_progress(value)  # type: ignore[unused-awaitable]
        time.sleep(0.001)  # sleep-ok: a processor that takes its time; a busy one would starve the loop it reports to
    return value


async def on_the_loop(job: Job[Any]) -> int:
    """Report all the time, from an async function."""
    end, value = time.monotonic() + BUSY, 0
    while time.monotonic() < end:
        value += 1
        await job.update_progress(value)
        await asyncio.sleep(0)
    return value


async def from_a_helper_thread(job: Job[Any]) -> int:
    """Report all the time, from a thread that an async function started."""
    return await asyncio.to_thread(in_a_thread, job)


@pytest.mark.parametrize("processor", [in_a_thread, on_the_loop, from_a_helper_thread])
async def test_at_most_ten_a_second_are_written_and_the_last_one_always(url: str, queue_name: str, processor: Any) -> None:
    """Hundreds of reports in a third of a second become five events: rising, the last with the outcome."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, processor):
        job = await queue.add("j")
        last = await job.result(PATIENCE)
        (completed,) = await recorder.wait(CompletedEvent)
        kept = await queue.get_job(job.id)
    events = recorder.of(ProgressEvent)
    values = [event.progress for event in events]
    assert last > 20  # on a busy machine
    assert 2 <= len(values) <= BUSY * 10 + 2
    assert sorted(set(values)) == values
    assert last == values[-1] and kept is not None and last == kept.progress
    assert events[-1].seq < completed.seq


async def test_the_last_progress_of_a_job_is_never_left_behind(url: str, queue_name: str) -> None:
    """With 250 jobs reporting at once, one that ends then still has its progress written before its outcome."""
    jobs = 250
    gate, end = asyncio.Event(), asyncio.Event()
    arrived = 0

    async def process(job: Job[int]) -> None:
        nonlocal arrived
        arrived += 1
        if arrived == jobs:
            gate.set()
        await gate.wait()
        await job.update_progress(job.data)
        if job.data < jobs - 20:
            await end.wait()

    async with Queue(queue_name, int, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process, concurrency=jobs):
        await queue.add_bulk([NewJob("j", number) for number in range(jobs)])
        completed = await recorder.wait(CompletedEvent, 20)
        end.set()
        await recorder.wait(CompletedEvent, jobs)
    seqs = {event.job_id: event.seq for event in recorder.of(ProgressEvent)}
    assert jobs == len(seqs)
    assert all(seqs[event.job_id] < event.seq for event in completed)


class SlowForProgress:
    """Stands before a server and holds questions that carry progress back for a while, but no others."""

    def __init__(self, server: TestServer) -> None:
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> str:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"redis://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}/0"

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        await self._listening.wait_closed()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", self._server.port)
        answering = asyncio.create_task(self._answer(server, to_client))
        self._tasks.add(answering)
        answering.add_done_callback(self._tasks.discard)
        while question := await client.read(2**20):
            wait = 0.05 if b'{"mark":' in question else 0.0
            asyncio.get_running_loop().call_later(wait, to_server.write, question)
        to_server.close()

    async def _answer(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while answer := await server.read(2**20):
            to_client.write(answer)
        to_client.close()


async def test_progress_on_its_way_is_not_overtaken_by_the_outcome(make_server: MakeServer, queue_name: str) -> None:
    """A worker has two calls in flight at a time: the outcome does not go while the progress before it has no answer."""
    jobs, rounds = 16, 6
    report, end = asyncio.Event(), asyncio.Event()

    async def process(job: Job[int]) -> None:
        await report.wait()
        await job.update_progress({"mark": job.data})
        await end.wait()

    async def give_way() -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async with (
        SlowForProgress(make_server()) as url,
        Queue(queue_name, int, url=url) as queue,
        Recorder(queue) as recorder,
        Worker(queue, process, concurrency=jobs),
    ):
        for number in range(1, rounds + 1):
            report.clear()
            end.clear()
            await queue.add_bulk([NewJob("j", each) for each in range(jobs)])
            await recorder.wait(ActiveEvent, jobs * number)
            await give_way()
            report.set()
            await give_way()
            end.set()
            await recorder.wait(CompletedEvent, jobs * number)
    seqs = {event.job_id: event.seq for event in recorder.of(ProgressEvent)}
    assert jobs * rounds == len(seqs)
    assert all(seqs[event.job_id] < event.seq for event in recorder.of(CompletedEvent))


async def test_a_failed_attempt_keeps_its_last_progress(url: str, queue_name: str) -> None:
    """Progress is written before a failure too, and remains to be read."""

    async def process(job: Job[Any]) -> None:
        for value in range(30):
            await job.update_progress(value)
        raise ValueError("no")

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        job = await queue.add("j")
        (failed,) = await recorder.wait(FailedEvent)
        kept = await queue.get_job(job.id)
    assert 29 == recorder.of(ProgressEvent)[-1].progress
    assert recorder.of(ProgressEvent)[-1].seq < failed.seq
    assert kept is not None and 29 == kept.progress


async def test_this_workers_listeners_hear_progress(url: str, queue_name: str, wait_until: WaitUntil) -> None:
    """worker.on("progress") tells what its own jobs report, without a reader."""
    heard: list[tuple[str, Any]] = []

    async def process(job: Job[Any]) -> None:
        await job.update_progress(1)
        await job.update_progress(2)

    async with Queue(queue_name, url=url) as queue:
        worker = Worker(queue, process)

        @worker.on("progress")
        async def _(event: ProgressEvent) -> None:
            heard.append((event.job_id, event.progress))

        async with worker:
            job = await queue.add("j")
            await wait_until(lambda: len(heard) == 2)
    assert [(job.id, 1), (job.id, 2)] == heard


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("50%", "progress '50%': must be a number or a JSON object"),
        (None, "progress None: must be a number"),
        (True, "progress True: must be a number"),
        ([1, 2], "must be a number or a JSON object"),
        (float("nan"), "progress nan: must be a number"),
        (float("inf"), "progress inf: must be a number"),
        ({"a": object()}, "cannot be encoded as JSON"),
        ({"a": "x" * PROGRESS_BYTES}, f"larger than the limit of {PROGRESS_BYTES} bytes"),
        ({"a": "ü" * (PROGRESS_BYTES // 2)}, f"progress of {PROGRESS_BYTES + 8} bytes: larger than the limit"),
    ],
    ids=["text", "None", "bool", "list", "nan", "inf", "object", "large", "large in bytes"],
)
async def test_what_is_no_progress_is_refused(url: str, queue_name: str, value: Any, words: str) -> None:
    """The processor gets InvalidJob with the value or the limit; nothing is written."""

    async def process(job: Job[Any]) -> str:
        with pytest.raises(InvalidJob) as caught:
            await job.update_progress(value)
        return str(caught.value)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        job = await queue.add("j")
        assert words in await job.result(PATIENCE)
        await recorder.wait(CompletedEvent)
    assert [] == recorder.of(ProgressEvent)


async def test_only_a_processor_reports(url: str, queue_name: str) -> None:
    """A job that was added or looked up has no run to report for."""
    async with Queue(queue_name, url=url) as queue:
        added = await queue.add("j")
        looked_up = await queue.get_job(added.id)
        for job in (added, looked_up):
            assert job is not None
            with pytest.raises(InvalidState, match="progress is reported by its processor only") as caught:
                await job.update_progress(1)
            assert (queue_name, added.id) == (caught.value.queue, caught.value.job_id)


async def test_a_run_that_is_over_reports_no_more(url: str, queue_name: str) -> None:
    """A job object kept beyond its run reports into the void, from the loop and from a thread."""
    kept: list[Job[Any]] = []

    async def process(job: Job[Any]) -> None:
        kept.append(job)

    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder, Worker(queue, process):
        await (await queue.add("j")).result(PATIENCE)
        await kept[0].update_progress(1)
        thread = threading.Thread(target=kept[0].update_progress, args=(2,))
        thread.start()
        thread.join()
        await (await queue.add("j")).result(PATIENCE)
        await recorder.wait(CompletedEvent, 2)
    assert [] == recorder.of(ProgressEvent)


async def test_a_stale_token_writes_no_progress(url: str, queue_name: str) -> None:
    """Progress of a run that lost its job is left out: nothing stored, no event, the others of its call are written."""
    async with Queue(queue_name, url=url) as queue, Recorder(queue) as recorder:
        jobs = await queue.add_bulk([NewJob("j", None)] * 2)
        mine, other = await claim_silently(queue, 2)
        context = queue.context
        updates = [
            ProgressUpdate(mine.id, "another.token", '"name":"j","attempt":1', "1"),
            ProgressUpdate("never-added", mine.token, '"name":"j","attempt":1', "1"),
            ProgressUpdate(other.id, other.token, '"name":"j","attempt":1', "2"),
        ]
        outcome = Outcome(mine.id, mine.token, "completed", '"name":"j","attempt":1,"worker":"silent"', "", "")
        await context.runner.run(
            settle_and_claim(
                context.keys,
                worker="silent",
                lease_ms=5000,
                wanted=0,
                retention=context.retention,
                progress=updates,
                outcomes=[outcome],
            )
        )
        await recorder.wait(ActiveEvent, 2)
        await recorder.wait(CompletedEvent)
        read = [await queue.get_job(job.id) for job in jobs]
    assert [(other.id, 2)] == [(event.job_id, event.progress) for event in recorder.of(ProgressEvent)]
    assert [None, 2] == [job.progress for job in read if job is not None]
