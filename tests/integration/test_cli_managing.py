"""The commands that change a queue: what they do, what they ask, and what --dry-run leaves alone."""

from __future__ import annotations

import asyncio
import io
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Job, NewJob, Queue, Worker
from eventq.cli.confirm import Consent, ask
from eventq.cli.manage import Done, Order, Plan, carry_out
from eventq.cli.opening import Place
from eventq.cli.runtime import exit_codes

from .command_line import CommandLine, dump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    import redis

pytest.importorskip("typer", reason="the extra cli is not installed")

DAY_MS = 86_400_000
DESTROYING = (
    ("remove", "wait-1", "fail-1"),
    ("drain",),
    ("drain", "--delayed"),
    ("clean", "--grace", "0", "--state", "failed"),
    ("obliterate",),
)
OTHERS = (("retry", "--all"), ("retry", "fail-1"), ("promote", "--all"), ("promote", "late-1"))


@pytest.fixture
def cli(url: str) -> CommandLine:
    """The command line on the test's server."""
    return CommandLine(url)


async def work(job: Job[Any]) -> Any:
    if job.name == "fails":
        raise ValueError("no")


@pytest.fixture
async def queue(url: str, queue_name: str) -> AsyncIterator[Queue[Any, Any]]:
    """A queue with five jobs each that completed, failed, wait, wait with a priority, and are delayed: `done-1` to `late-5`."""
    async with Queue(queue_name, url=url) as queue:
        await add(queue, "done", "fine")
        await add(queue, "fail", "fails")
        worker = Worker(queue, work, burst=True)
        await worker.run()
        await add(queue, "wait", "fine")
        await add(queue, "prio", "fine", priority=2)
        await add(queue, "late", "fine", delay=1000)
        yield queue


async def add(queue: Queue[Any, Any], prefix: str, name: str, **options: Any) -> None:
    for number in range(1, 6):
        await queue.add(name, job_id=f"{prefix}-{number}", **options)


async def counts(queue: Queue[Any, Any]) -> dict[str, int]:
    return {state.value: count for state, count in (await queue.get_job_counts()).items() if count}


ALL = {"completed": 5, "failed": 5, "waiting": 5, "prioritized": 5, "delayed": 5}


async def test_retry(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """By id, with a word about each that cannot be retried; all of a state, at most so many; attempts from the beginning."""
    ended = await cli("retry", queue.name, "fail-1", "done-1", "nobody")
    assert (1, f"retried 1 of 3 jobs of queue {queue.name}\n") == (ended.code, ended.out)
    assert ended.err.splitlines() == [
        "eventq: those whose attempts were used up get one more; --reset-attempts gives them all of theirs",
        "eventq: job done-1 is completed",
        "eventq: job nobody is not in the queue: never added, or removed since",
    ]
    assert ALL | {"failed": 4, "waiting": 6} == await counts(queue)
    job = await queue.get_job("fail-1")
    assert job and 2 == job.attempt
    assert re.search(r"^fail-1 +\S+ +waiting +1\+1 ", (await cli("jobs", queue.name, "-s", "waiting")).out, re.MULTILINE)
    ended = await cli("retry", queue.name, "--all", "--limit", "3", "--reset-attempts", "--json")
    assert {"queue": queue.name, "action": "retry", "dry_run": False, "count": 3} == ended.document
    job = await queue.get_job("fail-2")
    assert job and 1 == job.attempt
    assert 0 == (await cli("retry", queue.name, "--all", "--state", "completed")).code
    assert ALL | {"failed": 1, "completed": 0, "waiting": 14} == {"completed": 0} | await counts(queue)


async def test_promote(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """By id, or all that are delayed."""
    ended = await cli("promote", queue.name, "late-2", "late-2", "wait-1", "--json")
    assert (1, ["late-2"], ["wait-1"]) == (ended.code, ended.document["ids"], ended.document["left"])
    assert 0 == (await cli("promote", queue.name, "--all", "--limit", "1")).code
    assert f"promoted 3 delayed jobs of queue {queue.name}\n" == (await cli("promote", queue.name, "--all")).out
    assert ALL | {"delayed": 0, "waiting": 10} == {"delayed": 0} | await counts(queue)


async def test_remove_leaves_what_runs(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """Jobs of any state go; one that runs and one that is missing are told, and the exit code is 1."""
    started, end = asyncio.Event(), asyncio.Event()

    async def hold(job: Job[Any]) -> None:
        started.set()
        await end.wait()

    async with Worker(queue, hold):
        await started.wait()
        active = (await queue.get_jobs("active"))[0].id
        ended = await cli("remove", queue.name, "done-1", "fail-1", "prio-1", "late-1", active, "nobody", "--yes")
        end.set()
    assert (1, f"removed 4 of 6 jobs of queue {queue.name}\n") == (ended.code, ended.out)
    assert f"eventq: job {active} is active\n" in ended.err and "job nobody is not in the queue" in ended.err
    assert 0 == (await cli("remove", queue.name, "done-2", "-y")).code
    assert [None] * 3 == [await queue.get_job(job_id) for job_id in ("done-1", "fail-1", "done-2")]


async def test_pause_and_resume(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """Twice is no mistake."""
    for command, paused in (("pause", True), ("pause", True), ("resume", False)):
        ended = await cli(command, queue.name, "--json")
        assert (0, {"queue": queue.name, "paused": paused}) == (ended.code, ended.document)
        assert paused is await queue.is_paused()
    assert f"queue {queue.name} is paused: running jobs finish, no other begins\n" == (await cli("pause", queue.name)).out


async def test_drain(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """What is in line goes; what is delayed only when asked."""
    ended = await cli("drain", queue.name, "--yes")
    assert f"removed 10 waiting and prioritized jobs of queue {queue.name}\n" == ended.out
    assert {"completed": 5, "failed": 5, "delayed": 5} == await counts(queue)
    assert 5 == (await cli("drain", queue.name, "--delayed", "--yes", "--json")).document["count"]


def make_old(client: redis.Redis, queue_name: str, job_ids: list[str], age_ms: int) -> None:
    """Let jobs have been where they are for so long, in all that is stored of it."""
    key = f"eventq:{{{queue_name}}}:{queue_name}:"
    then = round(time.time() * 1000) - age_ms
    for job_id in job_ids:
        record: Any = client.hget(key + "jobs", job_id)
        layout, _, rest = record.decode().split("\t", 2)
        client.hset(key + "jobs", job_id, f"{layout}\t{then}\t{rest}")
        for column in ("completed", "failed"):
            if client.zscore(key + column, job_id) is not None:
                client.zadd(key + column, {job_id: then})


@pytest.mark.parametrize(
    ("state", "prefix"), [("completed", "done"), ("failed", "fail"), ("waiting", "wait"), ("delayed", "late")]
)
async def test_clean_removes_what_it_said(
    cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis, state: str, prefix: str
) -> None:
    """Jobs that are old enough, in every notation of a duration; --dry-run counts the very same ones."""
    make_old(redis_client, queue.name, [f"{prefix}-1", f"{prefix}-2"], 2 * DAY_MS + 60_000)
    make_old(redis_client, queue.name, [f"{prefix}-3"], DAY_MS + 60_000)
    for grace, expected in (("3d", 0), ("2d", 2), ("24h", 3), ("1440m", 3), ("172800", 2), ("0", 5)):
        ended = await cli("clean", queue.name, "--state", state, "--grace", grace, "--dry-run", "--json")
        assert (0, expected) == (ended.code, ended.document["count"]), grace
    ended = await cli("clean", queue.name, "--state", state, "--grace", "2d", "--yes", "--json")
    assert {f"{prefix}-1", f"{prefix}-2"} == set(ended.document["ids"])
    one = await cli("clean", queue.name, "--state", state, "--grace", "0s", "--limit", "1", "--yes")
    assert f"removed 1 {state} job of queue {queue.name} that have been so for longer than 0 s\n" == one.out
    assert ALL | {state: 2} == await counts(queue)


async def test_clean_counts_from_when_a_job_came_into_line(
    cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis
) -> None:
    """One that was added long ago and retried just now waits since just now; a damaged record is as old as can be."""
    make_old(redis_client, queue.name, ["fail-1", "wait-1", "late-1"], 3 * DAY_MS)
    await cli("retry", queue.name, "fail-1")
    await cli("promote", queue.name, "late-1")
    redis_client.hset(f"eventq:{{{queue.name}}}:{queue.name}:jobs", "wait-2", "nonsense")
    clean = ("clean", queue.name, "--state", "waiting", "--grace", "1d", "--json")
    assert 2 == (await cli(*clean, "--dry-run")).document["count"]
    assert {"wait-1", "wait-2"} == set((await cli(*clean, "--yes")).document["ids"])


async def test_clean_of_a_paused_queue_and_of_priorities(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """`paused` are the waiting jobs of a paused queue, and then nothing is `waiting`."""
    for state, running, paused in (("waiting", 5, 0), ("paused", 0, 5), ("prioritized", 5, 5)):
        dry = ("clean", queue.name, "--state", state, "--grace", "0", "--dry-run", "--json")
        await queue.resume()
        assert running == (await cli(*dry)).document["count"]
        await queue.pause()
        assert paused == (await cli(*dry)).document["count"]
    assert 5 == (await cli("clean", queue.name, "--state", "paused", "--grace", "0", "--yes", "--json")).document["count"]


async def test_obliterate_is_refused_while_jobs_run(cli: CommandLine, queue: Queue[Any, Any]) -> None:
    """Exit code 1 and nothing changed; with --force it goes, and with it its name from the list of queues."""
    started = asyncio.Event()

    async def hold(job: Job[Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    async with Worker(queue, hold, grace=0):
        await started.wait()
        for more in ("--yes", "--dry-run"):
            ended = await cli("obliterate", queue.name, more)
            assert (1, "") == (ended.code, ended.out)
            assert "has 1 running job" in ended.err or f"1 job of queue {queue.name} is running" in ended.err
        assert 1 == (await counts(queue))["active"]
        ended = await cli("obliterate", queue.name, "--force", "--yes", "--json")
        assert (0, 25) == (ended.code, ended.document["count"])
    assert {} == await counts(queue)


async def test_dry_run_changes_nothing(cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """Not a byte of what is stored, for every command; the answer says how many jobs it is about."""
    before = dump(redis_client, queue.name)
    assert len(before) > 8
    expected = {"remove": {2}, "drain": {10, 15}, "clean": {5}, "obliterate": {25}, "retry": {5, 1}, "promote": {5, 1}}
    for command, *rest in (*DESTROYING, *OTHERS):
        ended = await cli(command, queue.name, *rest, "--dry-run")
        assert (0, "") == (ended.code, ended.err)
        assert ended.out.startswith("would ") and ended.out.endswith("; nothing was changed\n")
        facts = (await cli(command, queue.name, *rest, "--dry-run", "--json")).document
        assert (command, True) == (facts["action"], facts["dry_run"])
        assert facts["count"] in expected[command]
    assert before == dump(redis_client, queue.name)


async def test_without_a_terminal_nobody_can_be_asked(
    cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis
) -> None:
    """What destroys is refused with exit code 2, as a process too, and nothing is changed."""
    before = dump(redis_client, queue.name)
    ended = [await cli(command, queue.name, *rest) for command, *rest in DESTROYING]
    ended.append(await cli.process("drain", queue.name))
    for each in ended:
        assert (2, "") == (each.code, each.out)
        assert "there is no terminal to ask on: say --yes, or look with --dry-run\n" in each.err
    assert before == dump(redis_client, queue.name)


async def test_on_a_terminal_it_asks(cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """n leaves everything: exit code 1; Ctrl-C: 130; what has to be typed to obliterate does it."""
    before = dump(redis_client, queue.name)
    question = f"Remove 10 waiting and prioritized jobs of queue {queue.name}? [y/N] "
    for answer, code in (("n\n", 1), ("\x03", 130)):
        ended = await cli.terminal("drain", queue.name, answer=answer)
        assert code == ended.code
        assert question in ended.out and "Traceback" not in ended.out
        assert ("declined; nothing was changed" in ended.out) is (code == 1)
    assert before == dump(redis_client, queue.name)
    ended = await cli.terminal("obliterate", queue.name, answer=f"{queue.name}\n")
    assert 0 == ended.code and f"[type {queue.name} to go on]" in ended.out
    assert f"removed queue {queue.name} with 25 jobs" in ended.out
    assert 1 == (await cli("jobs", queue.name)).code


@pytest.mark.parametrize(
    ("answer", "word", "expected"),
    [
        ("y\n", "", True),
        (" YES \n", "", True),
        ("n\n", "", False),
        ("\n", "", False),
        ("", "", False),
        ("yo\n", "", False),
        ("mails\n", "mails", True),
        ("y\n", "mails", False),
        ("Mails\n", "mails", False),
        ("", "mails", False),
    ],
)
def test_only_a_clear_yes_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, word: str, expected: bool
) -> None:
    """An empty line, the end of input, and any other word are no."""
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert expected is ask("Remove \x1b[31mall?", word=word)
    assert r"Remove \x1b[31mall?" in capsys.readouterr().err


async def test_long_work_has_a_bar_on_a_terminal_only(cli: CommandLine, queue: Queue[Any, Any], tmp_path: Path) -> None:
    """The bar is drawn on stderr, so that what programs read stays clean; without a terminal there is none."""
    await queue.add_bulk([NewJob("fine", n) for n in range(1200)])
    out = tmp_path / "out"
    ended = await cli.terminal("drain", queue.name, "--yes", "--json", out=out)
    assert 0 == ended.code
    assert re.search(r"drain.*━.*\d+/1210", ended.out)
    assert '"count": 1210' in out.read_text() and "\x1b" not in out.read_text()
    await queue.add_bulk([NewJob("fine", n) for n in range(1200)])
    without = await cli("drain", queue.name, "--yes")
    assert (0, "") == (without.code, without.err)


async def test_interrupted_work_says_how_far_it_came(
    url: str, queue: Queue[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is done stays done; Ctrl-C is passed on, and becomes exit code 130."""

    async def total(queue: Queue[Any, Any]) -> int:
        return 5

    async def act(queue: Queue[Any, Any], on_progress: Callable[[int], None]) -> Done:
        on_progress(await queue.promote_jobs(limit=2))
        raise KeyboardInterrupt

    async def plan(queue: Queue[Any, Any]) -> Plan:
        raise NotImplementedError

    order = Order(command="promote", plan=plan, act=act, total=total)

    def run() -> None:
        with exit_codes():
            carry_out(order, queue.name, Place(url=url), Consent(), as_json=False)

    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(run)
    assert 130 == ended.value.code
    said = "eventq: promote was stopped after 2 jobs or a few more: these are done, say it again for the rest\n"
    assert ("", said) == capsys.readouterr()
    assert ALL | {"delayed": 3, "waiting": 7} == await counts(queue)


async def test_wrong_usage_ends_with_2(cli: CommandLine, queue: Queue[Any, Any], redis_client: redis.Redis) -> None:
    """One sentence that says what, which value, and what to do; nothing is sent."""
    before = dump(redis_client, queue.name)
    for arguments, said in (
        (("retry", queue.name), "give the ids of the jobs, or --all"),
        (("retry", queue.name, "fail-1", "--all"), "not both"),
        (("retry", queue.name, "fail-1", "--limit", "1"), "--limit 1: goes with --all only"),
        (("retry", queue.name, "--all", "--state", "delayed"), "--state 'delayed': must be one of completed, failed"),
        (("promote", queue.name), "give the ids of the jobs, or --all"),
        (("clean", queue.name, "--grace", "soon"), "--grace 'soon': must be seconds or a number with s, m, h, d or w"),
        (("clean", queue.name, "--grace", "-5"), "--grace"),
        (("clean", queue.name), "--grace"),
        (("clean", queue.name, "--grace", "1d", "--state", "done"), "--state 'done': must be one of waiting"),
        (("drain", "a queue!", "--yes"), "a queue!"),
    ):
        ended = await cli(*arguments)
        assert (2, "") == (ended.code, ended.out), arguments
        assert said in ended.err and "Traceback" not in ended.err
    assert before == dump(redis_client, queue.name)
    for command in ("pause", "drain", "obliterate", "retry", "clean"):
        more = {"retry": ["--all"], "clean": ["--grace", "1", "--yes"], "pause": []}.get(command, ["--yes"])
        assert 1 == (await cli(command, "no-such-queue", *more)).code
