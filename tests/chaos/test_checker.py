"""The checker finds what is wrong: each defect is planted by hand into a sound queue or its ledger, and named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pytest

from eventq import Job, Queue, Unrecoverable, Worker

from .checker import Report, check, percentile
from .ledger import Acknowledged, Ended, Ledger, Seen, Started
from .stored import is_drained, key_of

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from ..conftest import WaitUntil

SECOND = 1_000_000_000
GHOST = "no-such-job"


class Scene:
    """A queue in which everything went well, and the tools to break it."""

    def __init__(self, client: redis.Redis, queue: str, ledger: Ledger) -> None:
        self.client = client
        self.queue = queue
        self.ledger = ledger
        self.ids: dict[str, str] = {}
        self.seq = 0

    async def play(self, url: str, wait_until: WaitUntil) -> None:
        """Jobs complete, fail at last, go once done, are removed and retried by hand; a durable reader sees it all."""

        async def process(job: Job[Any]) -> None:
            with self.ledger.run(job, "worker"):
                match job.name, job.attempt:
                    case ("fails", 2) | ("retried", 1):
                        raise Unrecoverable
                    case "fails", _:
                        raise ValueError
                    case _:
                        return

        async def drained() -> None:
            await wait_until(lambda: is_drained(self.client, self.queue))

        async with Queue(self.queue, url=url) as queue, queue.events(consumer="reader") as reader:
            async with Worker(queue, process):
                jobs = {
                    name: await queue.add(name, attempts=2, remove_on_complete=name == "goes")
                    for name in ("completes", "fails", "goes", "removed", "retried")
                }
                self.ids = {name: job.id for name, job in jobs.items()}
                self.ledger.acknowledged(*self.ids.values())
                await drained()
                await jobs["removed"].remove()
                await jobs["retried"].retry()
                await drained()
            self.seq = int(cast("bytes", self.client.hget(self.key("meta"), "seq")))
            async for event in reader:
                self.ledger.seen("reader", event)
                if event.seq == self.seq:
                    break

    def key(self, column: str) -> str:
        """Return the key of a column."""
        return key_of(self.queue, column)

    def check(self) -> Report:
        """Ask the checker."""
        return check(self.ledger, self.client, self.queue)

    def happen(self, kind: str, job_id: str, *, is_seen: bool = True, **facts: Any) -> None:
        """Put one more event on the stream, as a script would."""
        self.seq += 1
        events = json.dumps([{"job_id": job_id, "name": "unheard-of", **facts}])
        entry = {"kind": kind, "seq": self.seq, "n": 1, "ms": 0, "bytes": 0, "events": events}
        self.client.xadd(self.key("events"), cast("Any", entry))
        self.client.hset(self.key("meta"), "seq", self.seq)
        if is_seen:
            self.ledger._append(Seen, "reader", self.seq, kind, [job_id], "")

    def strike(self, is_struck: Callable[[list[Any]], bool]) -> None:
        """Take lines out of the ledger."""
        for path in self.ledger.directory.iterdir():
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if not is_struck(json.loads(line))))

    def rerun(self, job_id: str, change: Callable[[list[str]], None]) -> None:
        """Change the words of a job's run."""
        words = cast("bytes", self.client.hget(self.key("runs"), job_id)).decode().split(" ")
        change(words)
        self.client.hset(self.key("runs"), job_id, " ".join(words))


def put_in_line_again(scene: Scene) -> None:
    """Let an ended job wait, without a word to anybody."""
    job_id = scene.ids["completes"]
    scene.client.zrem(scene.key("completed"), job_id)
    scene.client.rpush(scene.key("wait"), job_id)
    scene.rerun(job_id, lambda words: words.__setitem__(0, "waiting"))


def lose_from_line(scene: Scene) -> None:
    """Add a job that stands in no line."""
    scene.ledger.acknowledged("nowhere")
    scene.client.hset(scene.key("jobs"), "nowhere", "1\t1\t\t\t\tunheard-of\t\n\n1")
    scene.happen("added", "nowhere", state="waiting")
    scene.client.hincrby(scene.key("totals"), "added __other__", 1)


def overlap(scene: Scene) -> None:
    """Let a run start within another one."""
    (start,) = scene.ledger.of(Started, scene.ids["completes"])
    (end,) = scene.ledger.of(Ended, scene.ids["completes"])
    scene.ledger._append(Started, start.job_id, 1, 10**6, "other", ns=(start.ns + end.ns) // 2)


def forget_trimmed(scene: Scene) -> None:
    """Trim half of the stream, and let the reader have missed one of its events."""
    scene.client.xtrim(scene.key("events"), maxlen=5, approximate=False)
    scene.strike(lambda line: line[0] == "Seen" and line[4] == 3)


def see_another(scene: Scene) -> None:
    """Let the reader have seen another event under the last number, as after a rollback."""
    scene.happen("active", GHOST, is_seen=False)
    scene.ledger._append(Seen, "reader", scene.seq, "completed", [GHOST], "")


#: Name, how it is done, and the problems that are to be found: with the ids concerned, or with anything.
DEFECTS: list[tuple[str, Callable[[Scene], object], dict[str, Any]]] = [
    ("an add that stored nothing", lambda s: s.ledger.acknowledged(GHOST), {"lost": (GHOST,)}),
    ("a job in no line", lose_from_line, {"lost": ("nowhere",), "misplaced": ("nowhere",), "stuck": ("nowhere",)}),
    ("a job out of its column", lambda s: s.client.zrem(s.key("completed"), s.ids["completes"]), {"misplaced": "completes"}),
    ("a job in two columns", lambda s: s.client.zadd(s.key("failed"), {s.ids["completes"]: 1}), {"misplaced": "completes"}),
    ("a column's job that is not stored", lambda s: s.client.zadd(s.key("leases"), {GHOST: 1}), {"misplaced": (GHOST,)}),
    ("a job that waits", put_in_line_again, {"stuck": "completes"}),
    ("a second outcome", lambda s: s.happen("completed", s.ids["completes"]), {"double_outcomes": "completes"}),
    ("another outcome", lambda s: s.happen("failed", s.ids["retried"]), {"double_outcomes": "retried"}),
    ("a run after the end", lambda s: s.happen("active", s.ids["fails"]), {"revived": "fails"}),
    ("a run after the removal", lambda s: s.happen("active", s.ids["goes"]), {"revived": "goes"}),
    ("a second add", lambda s: s.happen("added", s.ids["completes"]), {"added_twice": "completes"}),
    ("a wrong count of starts", lambda s: s.rerun(s.ids["fails"], lambda w: w.__setitem__(5, "9")), {"miscounted": "fails"}),
    ("an outcome of no run", lambda s: s.strike(lambda x: x[:4:3] == ["Ended", s.ids["goes"]]), {"unearned": "goes"}),
    ("two runs at once", overlap, {"overlapping": "completes"}),
    ("a stale write", lambda s: s.ledger.stale_write("renew", GHOST, accepted=True), {"stale_accepted": (f"renew {GHOST}",)}),
    ("an unseen event", lambda s: s.strike(lambda x: x[0] == "Seen" and x[4] == 7), {"uncounted": ("reader 7",)}),
    ("an unseen trimmed event", forget_trimmed, {"uncounted": ("reader 3",)}),
    ("another event seen", see_another, {"uncounted": None}),
    ("a seen event counted lost", lambda s: s.ledger.seen("reader", Lost()), {"overcounted": ("reader 8", "reader 9")}),
    ("a gap in the stream", lambda s: s.client.xdel(s.key("events"), entry_ids(s)[2]), {"stream_gaps": None}),
    ("a wrong total", lambda s: s.client.hincrby(s.key("totals"), "completed goes", 1), {"wrong_totals": None}),
]  # fmt: skip
#: What comes along with events made up, which `totals` and `runs` know nothing of.
BESIDES = {"wrong_totals", "miscounted"}


class Lost:
    """A reader's word that events 8 and 9 are lost."""

    kind: ClassVar[str] = "lost"
    seq, count = 7, 2


def entry_ids(scene: Scene) -> list[bytes]:
    """Return the entries of the stream."""
    return [entry for entry, _ in cast("list[Any]", scene.client.xrange(scene.key("events")))]


@pytest.fixture
async def scene(url: str, queue_name: str, redis_client: redis.Redis, tmp_path: Path, wait_until: WaitUntil) -> Scene:
    """A scene that has been played."""
    made = Scene(redis_client, queue_name, Ledger(tmp_path / "ledger"))
    await made.play(url, wait_until)
    return made


async def test_a_sound_queue_has_no_problems(scene: Scene) -> None:
    """Nothing is wrong, and the figures are what was done."""
    report = scene.check()
    report.assert_sound()
    assert {} == report.problems() and report.is_recounted
    assert (5, 0, 2, 0, 0) == (
        report.acknowledged, report.unacknowledged, report.extra_runs, report.stale_offered, report.counted_lost,
    )  # fmt: skip
    assert scene.seq == report.events_seen


async def test_a_trimmed_stream_is_made_up_for_by_what_readers_saw(scene: Scene) -> None:
    """Events that are gone from Redis are still history, and seen; totals are then not recounted."""
    scene.client.xtrim(scene.key("events"), maxlen=2, approximate=False)
    report = scene.check()
    assert ({}, False) == (report.problems(), report.is_recounted)
    scene.ledger.seen("other", Lost())
    assert scene.seq - 2 == len(scene.check().uncounted), "another reader was told of two only"


@pytest.mark.parametrize(("defect", "expected"), [pytest.param(do, what, id=name) for name, do, what in DEFECTS])
async def test_a_defect_is_found_and_named(scene: Scene, defect: Callable[[Scene], object], expected: dict[str, Any]) -> None:
    """The checker says what is wrong and of which job, and says nothing else."""
    defect(scene)
    report = scene.check()
    problems = report.problems()
    assert expected.keys() == problems.keys() - (BESIDES - expected.keys())
    for name, ids in expected.items():
        if ids is not None:
            assert (ids if isinstance(ids, tuple) else (scene.ids[ids],)) == problems[name]
    with pytest.raises(AssertionError, match=rf"SEED=7: .*\d {next(iter(expected))}: "):
        report.assert_sound(7)
    report.assert_sound(7, tolerating=problems)


def test_recoveries_are_measured_from_the_death_to_the_next_start(
    redis_client: redis.Redis, queue_name: str, tmp_path: Path
) -> None:
    """Runs that died with their process count, returned or not; what was started before, retried or failed does not."""
    ledger = Ledger(tmp_path / "ledger")

    def run(pid: int, job_id: str, begin: float, end: float | None = None, how: str = "returned", attempt: int = 1) -> None:
        fence = round(begin * 1000)
        lines: list[list[Any]] = [[Started.__name__, round(begin * SECOND), pid, job_id, attempt, fence, "w"]]
        if end is not None:
            lines.append([Ended.__name__, round(end * SECOND), pid, job_id, fence, how])
        with (ledger.directory / f"{pid}").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    run(1, "ran", 1)
    run(1, "returned", 1, 9)
    run(1, "failed", 1, 9, "ValueError")
    run(1, "given-away", 1)
    run(2, "given-away", 5, 6)
    run(2, "ran", 11.5, 12)
    run(2, "returned", 12.25, 13)
    run(2, "failed", 20, 21, attempt=2)
    run(2, "given-away", 30, 31)
    ledger.died(1, "found dead", 40 * SECOND)
    ledger.died(1, "kill -9", 10 * SECOND)
    report = check(ledger, redis_client, queue_name)
    assert (1.5, 2.25) == report.recoveries
    assert (2.25, 1.5) == (report.recovery(0.99), report.recovery(0.5))
    assert (5, ("given-away",)) == (report.extra_runs, report.overlapping)
    assert "recoveries 2: p50 1.50 s, p99 2.25 s, max 2.25 s" in str(report)


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path: Path) -> None:
    """What was written whole counts, what was not does not."""
    ledger = Ledger(tmp_path / "ledger")
    ledger.acknowledged("a", "b")
    (path,) = ledger.directory.iterdir()
    path.write_text(path.read_text()[:-1])
    assert ["a"] == [line.job_id for line in ledger.of(Acknowledged)]


def test_percentiles() -> None:
    """The smallest value that so many do not exceed."""
    values = [float(number) for number in range(1, 101)]
    assert (1.0, 50.0, 99.0, 100.0) == tuple(percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0))
    assert (0.0, 7.0) == (percentile([], 0.5), percentile([7.0], 0.99))
