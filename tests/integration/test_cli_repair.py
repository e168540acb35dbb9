"""`eventq doctor --all` and `--repair`: what they say, ask and leave, and mending a queue at work."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import JobOptions, NewJob, Queue, QueueScheduler, Worker
from eventq.client import AsyncRunner, Server
from eventq.keys import QueueKeys
from eventq.operations.examining import Damage, Examined, examine
from eventq.operations.repairing import mend
from eventq.states import JobState

from .command_line import CommandLine, dump

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..conftest import WaitUntil

pytest.importorskip("typer", reason="the extra cli is not installed")

DAY_MS = 86_400_000


async def work(job: Any) -> None:
    if job.name == "fails":
        raise ValueError("no")


class Sick:
    """A queue that nobody works on, and its columns as a plain client writes them."""

    def __init__(self, queue: Queue[Any, Any], client: redis.Redis) -> None:
        self.queue = queue
        self.keys = QueueKeys(queue.name)
        self.redis = client

    def __call__(self, verb: str, column: str, *rest: str | int) -> Any:
        """Write."""
        client: Any = self.redis
        return client.execute_command(verb, self.keys[column], *rest)

    @property
    def content(self) -> dict[bytes, Any]:
        """All that is stored."""
        return dump(self.redis, self.queue.name)


@pytest.fixture
async def sick(url: str, queue_name: str, redis_client: redis.Redis) -> AsyncIterator[Sick]:
    """A queue with two jobs completed, one failed, three waiting, one with a priority, one delayed."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([NewJob("fine"), NewJob("fine"), NewJob("fails")])
        await Worker(queue, work, burst=True).run()
        await queue.add_bulk([NewJob("fine") for _ in range(3)])
        await queue.add("fine", priority=2)
        await queue.add("fine", delay=1000)
        yield Sick(queue, redis_client)


async def test_everything_is_examined_and_nothing_changed(url: str, sick: Sick) -> None:
    """--all says that all was looked at; what is found is told with the way to mend it, and left."""
    cli = CommandLine(url)
    # Nobody looks after it, which is a problem of its own.
    before = sick.content
    ended = await cli("doctor", sick.queue.name, "--all")
    assert "all of 8 jobs looked at" in ended.out and "stuck" not in ended.out
    assert sick.content == before
    [delayed] = [job.id for job in await sick.queue.get_jobs("delayed")]
    sick("ZREM", "delayed", delayed)
    before = sick.content
    ended = await cli("doctor", sick.queue.name, "--all")
    assert (1, "") == (ended.code, ended.err)
    assert f"1 job standing in no state: {delayed}" in ended.out
    assert f"-> `eventq doctor {sick.queue.name} --repair` mends it" in ended.out
    assert sick.content == before


async def test_repair_says_what_it_did(url: str, sick: Sick) -> None:
    """A line per kind for people, the same for programs; exit code 0 afterwards; the next time there is nothing to mend."""
    cli = CommandLine(url)
    async with QueueScheduler(sick.queue):
        [delayed] = [job.id for job in await sick.queue.get_jobs("delayed")]
        waiting = [job.id for job in await sick.queue.get_jobs("waiting", limit=100)]
        sick("ZREM", "delayed", delayed)
        sick("DEL", "wait")
        sick("HSET", "results", "nobody", "1")
        sick("HSET", "consumers", "idle", f"me 0 {round(time.time() * 1000) - 40 * DAY_MS} epoch 0-1 0 ")
        ended = await cli("doctor", sick.queue.name, "--repair", "--yes")
        assert (0, "") == (ended.code, ended.err)
        told = ended.out.splitlines()
        name = sick.queue.name
        assert f"mended: {name}: put 1 job back in their states: {delayed}" in told
        assert f"mended: {name}: put 3 jobs back in line: {', '.join(sorted(waiting))}" in told
        assert f"mended: {name}: removed what was left of 1 job not stored: nobody" in told
        assert "idle" in ended.out, "told, as before"
        assert sick("HEXISTS", "consumers", "idle") == 1
        again = await cli("doctor", name, "--repair", "--yes")
        assert again.out.startswith("nothing to mend") and again.code == 0

        document = (await cli("doctor", name, "--repair", "--yes", "--forget-readers", "30d", "--json")).document
        assert {"server", "findings", "mended"} == document.keys()
        [mended] = document["mended"]
        message = "forgot 1 durable reader: idle"
        assert {"where": name, "what": "readers", "count": 1, "names": ["idle"], "message": message} == mended
        assert sick("HEXISTS", "consumers", "idle") == 0
    assert await sick.queue.get_state(delayed) == "delayed"
    counts = await sick.queue.get_job_counts()
    assert (counts[JobState.WAITING], counts[JobState.DELAYED]) == (3, 1)
    await Worker(sick.queue, work, burst=True).run()
    assert (await sick.queue.get_job_counts())[JobState.COMPLETED] == 2 + 4


async def test_it_asks_first(url: str, sick: Sick) -> None:
    """What it would do stands in the question; without a terminal to ask on, and when declined, nothing is changed."""
    cli = CommandLine(url)
    [delayed] = [job.id for job in await sick.queue.get_jobs("delayed")]
    sick("ZREM", "delayed", delayed)
    before = sick.content
    ended = await cli("doctor", sick.queue.name, "--repair")
    assert ended.code == 2 and "say --yes, or look with --all" in ended.err
    declined = await cli.terminal("doctor", sick.queue.name, "--repair", answer="n\n")
    assert f"queue {sick.queue.name}: put back in their states 1 job? [y/N]" in declined.out
    assert declined.code == 1 and "declined; nothing was changed" in declined.out
    assert sick.content == before
    agreed = await cli.terminal("doctor", sick.queue.name, "--repair", answer="y\n")
    assert f"put 1 job back in their states: {delayed}" in agreed.out
    assert await sick.queue.get_state(delayed) == "delayed"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--yes",), "--yes says what --repair may do"),
        (("--all", "--lost-jobs"), "--lost-jobs says what --repair may do"),
        (("--all", "--forget-readers", "2d"), "--forget-readers says what --repair may do"),
        (("--repair", "--yes", "--forget-readers", "2h"), "--forget-readers 2h: must be 1d at least"),
        (("--repair", "--yes", "--forget-readers", "soon"), "--forget-readers 'soon': must be seconds"),
    ],
)
async def test_wrong_usage(url: str, sick: Sick, arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, what is wrong in a sentence, and nothing is changed."""
    before = sick.content
    ended = await CommandLine(url)("doctor", sick.queue.name, *arguments)
    assert ended.code == 2 and says in ended.err
    assert sick.content == before


async def test_what_it_never_mends(url: str, sick: Sick) -> None:
    """Wrong types, totals, strays and damaged records are told with what to do; lost records only with a word of their own."""
    cli = CommandLine(url)
    name = sick.queue.name
    sick("HINCRBY", "totals", "starts fine", 7)
    sick.redis.set(sick.keys["meta"] + "2", "x")
    done = (await sick.queue.get_jobs("completed"))[0].id
    sick("HSET", "jobs", done, "nonsense")
    before = {key: value for key, value in sick.content.items() if not key.endswith((b":meta", b":calls", b":timers"))}
    ended = await cli("doctor", name, "--repair", "--yes")
    assert ended.code == 1
    assert f"1 record not readable: {done}" in ended.out and f"`eventq remove {name} ID` takes it out" in ended.out
    assert "the totals do not add up: 10 starts, but 3 outcomes and running jobs" in ended.out
    assert "1 key that no column of the queue has" in ended.out
    assert before == {key: value for key, value in sick.content.items() if not key.endswith((b":meta", b":calls", b":timers"))}
    sick("HDEL", "jobs", done)

    jobs: Any = sick.redis.hgetall(sick.keys["jobs"])
    sick("DEL", "jobs")
    ended = await cli("doctor", name, "--repair", "--yes")
    assert ended.code == 1 and "more than the 0 that are stored: put a backup back, or give them up" in ended.out
    assert sick("ZCARD", "completed") == 2
    sick.redis.hset(sick.keys["jobs"], mapping=jobs)
    ended = await cli("doctor", name, "--repair", "--yes")
    assert f"removed what was left of 1 job not stored: {done}" in ended.out
    sick("DEL", "jobs")
    ended = await cli("doctor", name, "--repair", "--yes", "--lost-jobs")
    assert sum((await sick.queue.get_job_counts()).values()) == 0

    sick.redis.set(sick.keys["progress"], "text")
    for arguments in ((), ("--all",), ("--repair", "--yes")):
        ended = await cli("doctor", name, *arguments)
        assert ended.code == 1 and f"{sick.keys['progress']} is a string, not a hash" in ended.out
    sick.redis.delete(sick.keys["progress"], sick.keys["meta"] + "2")


# -- at work


def job(n: int, fails: int) -> NewJob[Any]:
    """Return one of many: every so manieth fails, twice; some have a priority, some a delay."""
    options = JobOptions(priority=n % 2, delay=0.3 if n % 3 == 0 else None, attempts=2, backoff=0.05)
    return NewJob("fails" if n % fails == 0 else "fine", options=options)


class Doctor:
    """Examines and mends a queue again and again."""

    def __init__(self, url: str, keys: QueueKeys) -> None:
        self.keys = keys
        self.mended: Counter[Damage] = Counter()
        self._runner = AsyncRunner(Server(url, keys["meta"]))

    async def round(self) -> Examined:
        """Examine and mend once."""
        found = await self._runner.perform(examine(self.keys, None, None))
        for damage, names in (await self._runner.perform(mend(self.keys, found))).items():
            self.mended[damage] += len(names)
        return found

    async def close(self) -> None:
        """Close the connection."""
        await self._runner.close()


async def test_a_queue_at_work_that_is_sound_is_not_changed(url: str, queue_name: str) -> None:
    """While jobs are added, run, fail and are retried, rounds of mending find nothing, however the line moves under them."""
    async with Queue(queue_name, url=url) as queue:
        doctor = Doctor(url, QueueKeys(queue_name))
        await queue.add_bulk([job(n, 5) for n in range(1_000)])
        rounds, counts = 0, await queue.get_job_counts()
        async with Worker(queue, work, concurrency=20):
            while counts[JobState.COMPLETED] + counts[JobState.FAILED] < 1_000:
                found = await doctor.round()
                assert found.damage == {}
                rounds, counts = rounds + 1, await queue.get_job_counts()
        await doctor.close()
        assert rounds > 1
        assert (800, 200) == (counts[JobState.COMPLETED], counts[JobState.FAILED])


def plant(client: redis.Redis, keys: QueueKeys, chance: random.Random) -> int:
    """Take some jobs out of each state, and plant as many that are not stored; return how many."""
    planted = 0
    for column in ("prioritized", "delayed", "leases", "completed", "failed"):
        members: Any = client.zrange(keys[column], 0, -1)
        ids = [each for each in members if not each.startswith(b"no-job:")]
        for job_id in chance.sample(ids, min(5, len(ids))):
            planted += int(client.zrem(keys[column], job_id) == 1)
            client.zadd(keys[chance.choice(("completed", "delayed"))], {f"ghost-{chance.random()}": 1})
    length: Any = client.llen(keys["wait"])
    for _ in range(min(5, length)):
        with contextlib.suppress(redis.ResponseError):  # the line has become shorter
            client.lset(keys["wait"], chance.randrange(length), "nobody")
            planted += 1
    return planted


async def test_damage_planted_while_a_queue_works(
    url: str, queue_name: str, redis_client: redis.Redis, wait_until: WaitUntil
) -> None:
    """2,000 jobs, taken out of lines, states and leases at random while they run: each gets its one outcome, and all is well."""
    keys, number = QueueKeys(queue_name), 2_000
    chance = random.Random(7)
    async with Queue(queue_name, url=url) as queue:
        await queue.add_bulk([job(n, 7) for n in range(number)])
        doctor = Doctor(url, keys)
        planted = 0
        async with Worker(queue, work, concurrency=5):

            async def is_done() -> bool:
                nonlocal planted
                planted += plant(redis_client, keys, chance)
                await doctor.round()
                counts = await queue.get_job_counts()
                return counts[JobState.COMPLETED] + counts[JobState.FAILED] >= number

            await wait_until(is_done, description="all jobs", timeout=60)

            async def is_well() -> bool:
                return (await doctor.round()).damage == {}

            await wait_until(is_well, description="a sound queue")
        await doctor.close()
        assert planted > 50 and sum(doctor.mended.values()) > 50
        counts = {state: count for state, count in (await queue.get_job_counts()).items() if count}
        assert counts == {"completed": number - (number + 6) // 7, "failed": (number + 6) // 7}
        totals: Any = redis_client.hgetall(keys["totals"])
        outcomes = {
            kind: sum(int(totals.get(f"{kind} {name}".encode(), 0)) for name in ("fine", "fails"))
            for kind in ("completed", "failed")
        }
        assert outcomes == counts, "nothing lost, nothing recorded twice"
