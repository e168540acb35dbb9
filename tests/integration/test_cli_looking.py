"""The commands that look: queues, jobs, job; for people and for programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from eventq import Backoff, Job, NewJob, Queue, Worker

from .command_line import HOSTILE, PATIENCE, SHOWN, CommandLine, columns

if TYPE_CHECKING:
    import redis

pytest.importorskip("typer", reason="the extra cli is not installed")


@pytest.fixture
def cli(url: str) -> CommandLine:
    """The command line on the test's server."""
    return CommandLine(url)


async def work(job: Job[Any]) -> Any:
    await job.update_progress({"at": 50, "what": HOSTILE})
    if job.name == "fails":
        raise ValueError(job.data)
    return job.data


@pytest.fixture
async def filled(url: str, queue_name: str) -> str:
    """A queue with a job that failed twice (`bad`), one that completed (`good`), and others in every place where jobs wait."""
    async with Queue(queue_name, url=url) as queue:
        await queue.add("fails", HOSTILE, job_id="bad", attempts=2, backoff=Backoff.fixed(0.001))
        await queue.add("welcome mail", {"text": HOSTILE}, job_id="good")
        async with Worker(queue, work, concurrency=2):
            with pytest.raises(Exception, match="ValueError"):
                await (await _required(queue, "bad")).result(10)
            await (await _required(queue, "good")).result(10)
        await queue.add_bulk([NewJob("mail" if n % 2 else "news", n) for n in range(30)])
        await queue.add("later", 1, delay=500, job_id="later")
        await queue.add("urgent", 1, priority=3)
    return queue_name


async def _required(queue: Queue[Any, Any], job_id: str) -> Job[Any, Any]:
    job = await queue.get_job(job_id)
    assert job is not None
    return job


async def test_queues_counts_every_state(cli: CommandLine, filled: str, url: str) -> None:
    """A row per queue for people, an object per line for programs; a paused queue is called so and its jobs are counted."""
    ended = await cli("queues")
    assert (0, "") == (ended.code, ended.err)
    assert [filled, "running", "30", "1", "1", "0", "1", "1"] == columns(ended.out, "queue")[filled]
    async with Queue(filled, url=url) as queue:
        await queue.pause()
        counts = {state.value: count for state, count in (await queue.get_job_counts()).items()}
    [facts] = [line for line in (await cli("queues", "--json")).lines if line["name"] == filled]
    assert {"name": filled, "tag": filled, "paused": True, "counts": counts} == facts
    assert (0, 30) == (counts["waiting"], counts["paused"])
    assert [filled, "paused", "30"] == columns((await cli("queues")).out, "queue")[filled][:3]


async def test_prefix_and_tag_are_found(free_url: str, queue_name: str, redis_client: redis.Redis) -> None:
    """The tag comes from the list of queues; --prefix names another list; --tag wins."""
    cli = CommandLine(free_url)
    async with Queue(queue_name, url=free_url, prefix="shop", tag=f"{queue_name}-tag") as queue:
        await queue.add("a", job_id="one")
    [facts] = [line for line in (await cli("queues", "--prefix", "shop", "--json")).lines if line["name"] == queue_name]
    assert f"{queue_name}-tag" == facts["tag"]
    assert ["one"] == [line["id"] for line in (await cli("jobs", queue_name, "--prefix", "shop", "--json")).lines]
    assert 0 == (await cli("job", queue_name, "one", "--prefix", "shop", "--tag", f"{queue_name}-tag")).code
    assert 1 == (await cli("jobs", queue_name)).code
    told = await cli.process("events", queue_name, "--prefix", "shop", "--consumer", "me", "--count", "1", "--json")
    assert ("added", "one") == (told.document["kind"], told.document["job_id"])
    redis_client.delete("shop:queues")


async def test_jobs_lists_a_page_of_each_state(cli: CommandLine, filled: str) -> None:
    """Id, name, state, attempt, age, error; what follows is told on stderr; --json has the same jobs."""
    ended = await cli("jobs", filled, "--limit", "2")
    rows = columns(ended.out, "id")
    assert 0 == ended.code and 2 + 1 + 1 + 1 + 1 == len(rows)
    assert re.fullmatch(r"good +welcome mail +completed +1/1 +\d+ s", ended.out.splitlines()[-1])
    assert ["bad", "fails", "failed", "2/2"] == rows["bad"][:4]
    assert "eventq: waiting: 1 to 2 of 30; the next begin at --start 2\n" == ended.err
    bad, good = (await cli("jobs", filled, "-s", "failed", "-s", "completed", "--json")).lines
    assert ("bad", 2, 2, {"type": "ValueError", "message": HOSTILE}) == tuple(
        bad[name] for name in ("id", "attempt", "max_attempts", "error")
    )
    assert ("good", None, "welcome mail") == (good["id"], good["error"], good["name"])


async def test_jobs_filters_and_pages(cli: CommandLine, filled: str) -> None:
    """--name looks through the state, --start goes on where the page before ended, --oldest-first turns it round."""
    waiting = ("jobs", filled, "--state", "waiting", "--json", "--limit", "10")
    first = await cli(*waiting, "--name", "mail")
    assert ["mail"] * 10 == [line["name"] for line in first.lines]
    begins = re.search(r"the next begin at --start (\d+)", first.err)
    assert begins
    second = (await cli(*waiting, "--name", "mail", "--start", begins[1])).lines
    assert 5 == len(second)
    assert 15 == len({line["id"] for line in (*first.lines, *second)})
    ids = [line["id"] for line in (await cli(*waiting, "--oldest-first", "--limit", "500")).lines]
    assert 30 == len(ids) and sorted(ids) == ids
    none = await cli("jobs", filled, "--name", "nothing like it")
    assert (0, "") == (none.code, none.out)
    assert "no such jobs" in none.err


async def test_job_tells_all_and_its_history(cli: CommandLine, filled: str) -> None:
    """What is stored, and every event since it was added, with waits, attempts and errors."""
    ended = await cli("job", filled, "bad")
    assert (0, "") == (ended.code, ended.err)
    assert re.search(r"^attempt +2 of 2 \(starts 2, fails 2, stalls 0, releases 0\)$", ended.out, re.MULTILINE)
    assert re.search(r"^ +raise ValueError\(job\.data\)$", ended.out, re.MULTILINE), "the traceback"
    kinds = re.findall(r"^\d{4}-\S+ \S+ [A-Z]\S+ +(?:\d+\S* m?s)? +(\w+)", ended.out, re.MULTILINE)
    assert ["added", "active", "progress", "retrying", "waiting", "active", "progress", "failed"] == kinds
    assert ended.out.endswith("8 events, from its add on\n")
    facts = (await cli("job", filled, "good", "--json")).document
    assert ("completed", {"text": HOSTILE}, {"text": HOSTILE}) == (facts["state"], facts["data"], facts["result"])
    assert {"at": 50, "what": HOSTILE} == facts["progress"]
    assert facts["timeline_complete"]
    assert ["added", "active", "progress", "completed"] == [event["kind"] for event in facts["timeline"]]
    assert isinstance(facts["timeline"][-1]["ran"], float)
    later = (await cli("job", filled, "later", "--json")).document
    assert later["due"] > later["added_at"] and "due" in (await cli("job", filled, "later")).out


async def test_job_shows_its_log(cli: CommandLine, filled: str, url: str) -> None:
    """Lines of the log come out as text, for people and for programs."""
    async with Queue(filled, url=url) as queue:
        job = await _required(queue, "later")
        await job.log("first")
        await job.log(HOSTILE)
    assert ["first", HOSTILE] == (await cli("job", filled, "later", "--json")).document["logs"]
    assert re.search(r"^logs +first$", (await cli("job", filled, "later")).out, re.MULTILINE)


async def test_history_says_when_it_is_cut(cli: CommandLine, filled: str, redis_client: redis.Redis) -> None:
    """Where the stream no longer reaches back to the add, that is said; a stream that is longer than a page is read on."""
    stream = f"eventq:{{{filled}}}:{filled}:events"
    for _ in range(100):  # foreign entries, more than a page of them
        redis_client.xadd(stream, {"any": "thing"})
    facts = (await cli("job", filled, "bad", "--json")).document
    assert (True, 8) == (facts["timeline_complete"], len({event["seq"] for event in facts["timeline"]}))
    assert 8 == len(facts["timeline"])
    entries: Any = redis_client.xrange(stream)
    retried = next(entry for entry, fields in entries if fields[b"kind"] == b"retrying")
    redis_client.xtrim(stream, minid=retried, approximate=False)
    facts = (await cli("job", filled, "bad", "--json")).document
    assert (False, "retrying") == (facts["timeline_complete"], facts["timeline"][0]["kind"])
    assert "no longer reaches back to its add" in (await cli("job", filled, "bad")).out


async def test_removed_job_is_told_by_its_events(cli: CommandLine, filled: str, url: str) -> None:
    """What is not stored any more is looked for in the stream, before it is called not found."""
    async with Queue(filled, url=url) as queue:
        await queue.remove_jobs(["bad"])
    facts = (await cli("job", filled, "bad", "--json")).document
    assert (None, "removed") == (facts["state"], facts["timeline"][-1]["kind"])
    assert "not stored any more" in (await cli("job", filled, "bad")).out


async def test_damaged_record_is_shown_as_such(cli: CommandLine, filled: str, redis_client: redis.Redis) -> None:
    """It stands in listings and can be looked at; nothing fails on it."""
    redis_client.hset(f"eventq:{{{filled}}}:{filled}:jobs", "bad", HOSTILE)
    [facts] = (await cli("jobs", filled, "-s", "failed", "--json")).lines
    assert ("bad", None, "UnreadableRecord") == (facts["id"], facts["name"], facts["error"]["type"])
    assert re.search(r"^bad +\? +unreadable", (await cli("jobs", filled, "-s", "failed")).out, re.MULTILINE)
    assert 0 == (await cli("job", filled, "bad")).code
    assert "UnreadableRecord" == (await cli("job", filled, "bad", "--json")).document["error"]["type"]


async def test_what_is_not_there_ends_with_1(cli: CommandLine, filled: str) -> None:
    """A queue or a job that is not there: exit code 1 and one sentence; a server that is not there as well."""
    for arguments, said in (
        (("jobs", "no-such-queue"), "there is no queue 'no-such-queue' on "),
        (("job", filled, "nobody"), "job 'nobody' is not in queue"),
        (("queues", "--url", "redis://127.0.0.1:1"), "no answer from redis://127.0.0.1:1"),
    ):
        ended = await cli(*arguments)
        assert (1, "") == (ended.code, ended.out)
        assert said in ended.err and 1 == len(ended.err.splitlines())


async def test_wrong_usage_ends_with_2(cli: CommandLine, filled: str) -> None:
    """Unknown states, names that cannot be, limits out of range: exit code 2, and what is allowed."""
    for arguments, said in (
        (("jobs", filled, "--state", "finished"), "--state 'finished': must be one of waiting, "),
        (("jobs", "a queue!"), "a queue!"),
        (("queues", "--prefix", "a prefix!"), "a prefix!"),
        (("jobs", filled, "--limit", "0"), "--limit"),
        (("job", filled), "ID"),
    ):
        ended = await cli(*arguments)
        assert (2, "") == (ended.code, ended.out)
        assert said in ended.err and "Traceback" not in ended.err


async def test_hostile_text_is_shown_as_text(cli: CommandLine, filled: str) -> None:
    """Without a terminal and on one, names, data, progress, errors and ids come out as escapes, and markup as it stands."""
    for ended in (await cli("jobs", filled), await cli.process("job", filled, "bad"), await cli("job", filled, "good")):
        assert 0 == ended.code
        assert all(char.isprintable() or char == "\n" for char in ended.out)
    assert SHOWN in (await cli("jobs", filled)).out
    for arguments in (("jobs", filled), ("job", filled, "bad")):
        written = (await cli.terminal(*arguments, width=240)).out
        text = re.sub(r"\x1b\[[0-9;]*m", "", written).replace("\r\n", "\n")
        assert SHOWN in text
        assert all(char.isprintable() or char == "\n" for char in text)
    ended = await cli("job", filled, HOSTILE)
    assert 1 == ended.code and SHOWN in ended.err
    assert all(char.isprintable() or char == "\n" for char in ended.err)
    printed = (await cli("job", filled, "bad", "--json")).out
    assert printed.isascii() and HOSTILE == json.loads(printed)["error"]["message"]


async def test_narrow_terminal_keeps_ids_whole(cli: CommandLine, filled: str) -> None:
    """Errors are cut, ids never are; off a terminal nothing is cut."""
    written = re.sub(r"\x1b\[[0-9;]*m", "", (await cli.terminal("jobs", filled, "--limit", "3", width=72)).out)
    listed = (await cli("jobs", filled, "--limit", "3", "--json")).lines
    assert all(line["id"] in written for line in listed)
    assert "…" in written and SHOWN not in written


async def test_reader_that_is_gone_is_no_error(cli: CommandLine, filled: str) -> None:
    """As in `eventq jobs … | head -0`: exit code 0 and not a word."""
    assert (0, b"") == await asyncio.to_thread(unread, cli.url, "jobs", filled, "-s", "failed")


def unread(url: str, *arguments: str) -> tuple[int, bytes]:
    """Run a command whose stdout nobody reads; return its exit code and stderr."""
    environment = {**os.environ, "EVENTQ_URL": url, "PYTHONUNBUFFERED": ""}  # what is short is written at the end only
    command = [sys.executable, "-m", "eventq", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        told = process.stderr.read()
        return process.wait(PATIENCE), told


async def test_completion_script_is_printed(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the shell that is asked for, and it names the program, which then answers with its commands."""
    ended = await cli("--show-completion", "bash")
    assert 0 == ended.code
    assert "_EVENTQ_COMPLETE=complete_bash" in ended.out
    for name, value in (("_EVENTQ_COMPLETE", "complete_bash"), ("COMP_WORDS", "eventq ob"), ("COMP_CWORD", "1")):
        monkeypatch.setenv(name, value)
    assert "obliterate\n" == (await cli()).out


async def test_help_lists_commands_in_groups_and_exit_codes(cli: CommandLine) -> None:
    """Somebody who looks for a command finds it."""
    text = (await cli("--help")).out
    for word in ("Running", "Looking", "Managing", "Exit codes: 0 done", "queues", "obliterate", "doctor"):
        assert word in text
