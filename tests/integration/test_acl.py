"""acl/: what each role may do is enough for it, and nothing in it is there in vain; what a role must not do is refused, whole."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from eventq import Job, Queue, Worker
from eventq.commands.events import hold_consumer, report_events
from eventq.commands.repair import repair_jobs, repair_line, repair_upkeep
from eventq.commands.upkeep import run_timers, sweep_queue, trim_events
from eventq.commands.watch import Vital, report_worker
from eventq.commands.work import Held, release_jobs, renew_leases, settle_and_claim
from eventq.errors import JobFailed, ServerRefused
from eventq.firing import Firing
from eventq.permissions import READS, TELLS, Role, acl_rules, acl_user
from eventq.scripts import load_script, script_names

from ..servers import ServerKind, TestServer, acl_files, chosen_kind
from .acl_damage import plants
from .acl_scenarios import PATIENCE, SCENARIOS, Stage, adds, opened, process
from .command_line import dump

if TYPE_CHECKING:
    from types import ModuleType

    from ..conftest import MakeServer, WaitUntil

ROOT = Path(__file__).parents[2]
#: Of each role, so many of its permissions are taken away by `make test`; all of them by `make test-full`.
SAMPLE = 2


@pytest.fixture(scope="module")
def acl_server(server_kind: ServerKind) -> Iterator[TestServer]:
    """A server whose users come and go."""
    with TestServer(server_kind, "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def stage(acl_server: TestServer) -> Iterator[Stage]:
    """An empty server, and a user who may do nothing yet."""
    stage = Stage(acl_server, "somebody", "stage")
    stage.clear()
    yield stage
    stage.client.close()


def written(role: Role) -> list[str]:
    """Return what a role's file says it may do: patterns, commands, and selectors, each whole."""
    words = (ROOT / "acl" / f"{role}.acl").read_text().split()
    assert words[:5] == ["user", f"eventq-{role}", "on", ">secret", "resetchannels"]
    rules: list[str] = []
    for word in words[5:]:
        if rules and rules[-1].startswith("(") and not rules[-1].endswith(")"):
            rules[-1] += f" {word}"
        else:
            rules.append(word)
    return rules


def without_one(rules: list[str]) -> dict[str, list[str]]:
    """Return the rules without one of them, or without one word of a selector, by what is missing."""
    found: dict[str, list[str]] = {}
    for index, rule in enumerate(rules):
        before, after = rules[:index], rules[index + 1 :]
        if not rule.startswith("("):
            found[rule] = before + after
            continue
        words = rule.strip("()").split()
        for word in words:
            rest = [each for each in words if each != word]
            found[f"{word} of {rule}"] = [*before, f"({' '.join(rest)})", *after]
    return found


#: What `eventq doctor` asks for, and does without where it is denied.
DOCTORS = ("config|get", "slowlog|get", "scan")
#: Redis 7.0 confirms nothing of its disk, and has no such role.
ROLES = [role for role in Role if role is not Role.FSYNC_PRODUCER or chosen_kind() == "valkey"]
MISSING = [(role, what) for role in ROLES for what in without_one(written(role))]
# Which ones, the seed of hypothesis and of everything else does not say: test processes have to agree.
SAMPLED = [
    (role, what)
    for role in ROLES
    for what in random.Random(f"{role} less one").sample([w for r, w in MISSING if r is role], SAMPLE)
]


async def perform(stage: Stage, role: Role, rules: list[str]) -> str:
    """Play a role with these rules until it is done, fails, or something is denied; return what was wrong, '' for nothing."""
    stage.clear()
    stage.permit(*rules)
    stage.unasked = DOCTORS if role is Role.OBSERVER else ()
    playing = asyncio.create_task(SCENARIOS[role](stage))
    async with asyncio.timeout(6 * PATIENCE):
        while not playing.done() and not stage.denied():
            await asyncio.wait([playing], timeout=0.02)
    denied = stage.denied()
    # Whatever it is about may go on, and so comes to an end of its own: nothing is left open.
    stage.permit("~*", "+@all")
    await asyncio.wait([playing], timeout=PATIENCE / 2)
    playing.cancel()
    [outcome] = await asyncio.gather(playing, return_exceptions=True)
    if denied:
        return f"denied: {', '.join(denied)}"
    return "" if outcome is None else f"failed: {outcome!r}"


@pytest.mark.parametrize("role", ROLES)
async def test_a_role_may_do_what_it_has_to(stage: Stage, role: Role) -> None:
    """A day's work, as a user of that role: nothing fails, and nothing is refused."""
    assert await perform(stage, role, written(role)) == ""


@pytest.mark.parametrize(("role", "missing"), SAMPLED)
async def test_a_permission_is_needed(stage: Stage, role: Role, missing: str) -> None:
    """Without this one the day's work fails, or something is refused."""
    assert await perform(stage, role, without_one(written(role))[missing]) != ""


@pytest.mark.full
@pytest.mark.parametrize(("role", "missing"), [each for each in MISSING if each not in SAMPLED])
async def test_every_permission_is_needed(stage: Stage, role: Role, missing: str) -> None:
    """The rest of them."""
    assert await perform(stage, role, without_one(written(role))[missing]) != ""


# --- what is refused --------------------------------------------------------------------------------------------------

Attempt = Callable[[Queue[Any, Any]], Awaitable[object]]


async def first(queue: Queue[Any, Any], state: str) -> Job[Any, Any]:
    """Return a job in this state."""
    return (await queue.get_jobs(state))[0]


async def claim(queue: Queue[Any, Any]) -> object:
    """Claim as a worker does."""
    context = queue.context
    command = settle_and_claim(
        context.keys, worker="w", lease_ms=1000, wanted=10, retention=context.retention, progress=(), outcomes=()
    )
    return await context.runner.run(command)


async def each(queue: Queue[Any, Any], state: str, call: Callable[[Job[Any, Any]], Awaitable[object]]) -> object:
    """Do something to a job in this state."""
    return await call(await first(queue, state))


#: What changes something, by the script that does it.
ATTEMPTS: dict[str, Attempt] = {
    "add_jobs": lambda queue: queue.add("added"),
    "settle_and_claim": claim,
    "release_jobs": lambda queue: run(queue, release_jobs(queue.context.keys, [Held("own", "token")])),
    "renew_leases": lambda queue: run(queue, renew_leases(queue.context.keys, 1000, [Held("own", "token")])),
    "sweep_queue": lambda queue: run(queue, sweep_queue(queue.context.keys, 1000, 300, 2, queue.context.retention)),
    "run_timers": lambda queue: run(queue, run_timers(queue.context.keys, queue.context.retention)),
    "trim_events": lambda queue: run(queue, trim_events(queue.context.keys, (0, 0, 0, 0))),
    "report_events": lambda queue: run(queue, report_events(queue.context.keys, "error", ["{}"])),
    "report_worker": lambda queue: run(queue, report_worker(queue.context.keys, "w", 1000, Vital("i", 0, 0, 1, 0, 0, 0, "{}"))),
    "pause_queue": lambda queue: queue.pause(),
    "resume_queue": lambda queue: queue.resume(),
    "clean_jobs": lambda queue: queue.clean(0, state="waiting"),
    "clean_jobs of a set": lambda queue: queue.clean(0, state="prioritized"),
    "clean_jobs of finished": lambda queue: queue.clean(0, state="completed"),
    "obliterate_queue": lambda queue: queue.obliterate(force=True),
    "retry_jobs": lambda queue: queue.retry_jobs(),
    "promote_jobs": lambda queue: queue.promote_jobs(),
    "remove_jobs": lambda queue: queue.remove_jobs(["own"]),
    "remove_jobs of a set": lambda queue: each(queue, "prioritized", lambda job: job.remove()),
    "update_data": lambda queue: each(queue, "waiting", lambda job: job.update_data("small")),
    "change_delay": lambda queue: each(queue, "delayed", lambda job: job.change_delay(1)),
    "change_priority": lambda queue: each(queue, "prioritized", lambda job: job.change_priority(0)),
    "add_log": lambda queue: each(queue, "waiting", lambda job: job.log("line")),
    "clear_logs": lambda queue: each(queue, "failed", lambda job: job.clear_logs()),
    "set_schedule": lambda queue: queue.upsert_schedule("new", every=60, name="n"),
    "remove_schedule": lambda queue: queue.remove_schedule("hourly"),
    "fire_schedule": lambda queue: Firing(queue.context.runner, queue.context.keys).fire_due(),
    "repair_jobs": lambda queue: run(queue, repair_jobs(queue.context.keys, ["nobody", "stateless"])),
    "repair_line": lambda queue: run(queue, repair_line(queue.context.keys, [("lost", "")], recount=True)),
    "repair_upkeep": lambda queue: run(queue, repair_upkeep(queue.context.keys, "consumers", ["away"])),
    "hold_consumer": lambda queue: run(queue, hold_consumer(queue.context.keys, "billing", "me", 1000)),
}
ALLOWED: dict[Role, set[str]] = {
    # Its tables are those that adding writes to: who may add may also stop the claiming, and tell events.
    Role.PRODUCER: {"add_jobs", "pause_queue", "report_events"},
    Role.FSYNC_PRODUCER: {"add_jobs", "pause_queue", "report_events"},
    Role.OBSERVER: {"hold_consumer"},
    # Its commands come to most of what an administrator does.
    Role.WORKER: ATTEMPTS.keys() - {"obliterate_queue", "promote_jobs", "change_delay", "repair_jobs", "repair_line"},
    Role.ADMIN: set(ATTEMPTS),
}


async def run(queue: Queue[Any, Any], command: Any) -> object:
    """Send a call as it is."""
    return await queue.context.runner.run(command)


async def set_up(stage: Stage) -> None:
    """A queue with jobs in every state that lasts, a schedule that is due, a line of a log."""
    stage.clear()
    async with stage.helped() as queue:
        async with Worker(queue, process):
            await (await queue.add("busy", 1)).result(PATIENCE)
            failed = await queue.add("ends")
            with contextlib.suppress(JobFailed):
                await failed.result(PATIENCE)
        await failed.log("line")
        await adds(queue)
        await plants(stage, queue)
        await queue.upsert_schedule("hourly", every=3600, name="plain")
        stage.advance(7200)


@pytest.mark.parametrize("role", ROLES)
async def test_what_is_refused_is_not_done_by_half(stage: Stage, role: Role) -> None:
    """Every script that changes something, whoever it is for: it is done whole, or refused and nothing is changed."""
    assert {name.partition(" ")[0] for name in ATTEMPTS} == {n for n in script_names() if not load_script(n).reads_only}
    await set_up(stage)
    stage.permit(*written(role))
    done: set[str] = set()
    with redis.Redis(host="127.0.0.1", port=stage.server.port) as client:
        saved: dict[bytes, Any] = {key: client.dump(key) for key in client.scan_iter()}
        for name, attempt in ATTEMPTS.items():
            client.flushall()
            for key, value in saved.items():
                client.restore(key, 0, value)
            if name == "resume_queue":
                client.hset(f"eventq:{{{stage.name}}}:{stage.name}:meta", "paused", "1")
            before = dump(client, stage.name)
            async with opened(stage.queue()) as queue:
                with contextlib.suppress(ServerRefused):
                    await attempt(queue)
                    done.add(name)
            assert name in done or dump(client, stage.name) == before, name
    assert done == ALLOWED[role]


NEVER = """
KEYS *|FLUSHALL|FLUSHDB|DEBUG SLEEP 0|CONFIG SET maxmemory 1|SCRIPT FLUSH|FUNCTION FLUSH|SHUTDOWN|EVAL return 0|MONITOR|ACL LIST|
CLIENT KILL ID 1|REPLICAOF NO ONE|MIGRATE h 1 k 0 1|SWAPDB 0 1|RENAME eventq:{q}:q:jobs eventq:{q}:q:data|PUBLISH channel m|
HGET other:{q}:q:meta seq|HGET eventq2:{q}:q:meta seq|HGET something seq|HGET eventq:other seq|DEL eventq:{q}:q:jobs
""".replace("\n", "").split("|")
AS_ADMIN = ("SCAN 0", "SLOWLOG GET 1", "UNLINK eventq:{q}:q:jobs")
ADDING = "producer fsync-producer worker admin"
BY_WHOM = {
    **dict.fromkeys(NEVER, ""),
    **dict.fromkeys(AS_ADMIN, "admin"),
    "HDEL eventq:{q}:q:jobs id": "worker admin",
    "HSET eventq:{q}:q:runs id run": "worker admin",
    "CONFIG GET save": "fsync-producer admin",
    "WAIT 1 1": ADDING,
    "HSET eventq:{q}:q:jobs id job": ADDING,
    "HSET eventq:{q}:q:consumers name place": "observer worker admin",
    "HSET eventq:queues q tag": ADDING,
    "LPOP eventq:{q}:q:wait": "worker admin",
    "HSCAN eventq:{q}:q:jobs 0": "observer admin",
    "HGET eventq:{q}:q:jobs id": f"{ADDING} observer",
}


@pytest.mark.parametrize("role", ROLES)
def test_what_a_user_may_send(stage: Stage, role: Role) -> None:
    """Plain commands, whatever eventq would do: nobody stops or empties the server, looks around, or leaves his prefix."""
    stage.permit(*written(role))
    able = {line: stage.client.execute_command("ACL", "DRYRUN", stage.user, *line.split()) == "OK" for line in BY_WHOM}
    assert able == {line: role in roles.split() for line, roles in BY_WHOM.items()}


async def test_a_permission_is_given_back_and_a_password_changed(stage: Stage, wait_until: WaitUntil) -> None:
    """A worker says what it may not do and carries on when it may; it stays when another password is added to its own."""
    stage.permit(*written(Role.WORKER))
    told: list[str] = []
    async with stage.queue() as queue:
        worker = Worker(queue, process)
        worker.on("error")(lambda event: told.append(event.message))
        async with worker:
            assert await (await queue.add("plain", 1)).result(PATIENCE) == 1
            stage.client.execute_command("ACL", "SETUSER", stage.user, "-evalsha")
            with pytest.raises(
                ServerRefused, match="^script add_jobs: the Redis user lacks a permission: .*'evalsha'"
            ) as refused:
                await queue.add("plain", 2)
            assert refused.value.code == "NOPERM"
            await wait_until(lambda: told, description="the worker to be refused")
            stage.client.execute_command("ACL", "SETUSER", stage.user, "+evalsha")
            assert await (await queue.add("plain", 3)).result(PATIENCE) == 3
            assert all("'evalsha'" in message for message in told)

            stage.client.execute_command("ACL", "SETUSER", stage.user, ">new")
            assert stage.client.execute_command("CLIENT", "KILL", "USER", stage.user) > 3
            assert await (await queue.add("plain", 4)).result(PATIENCE) == 4
        assert worker.failure is None


# --- how the files are made -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    """tools/make_acl.py, which is no package's."""
    spec = importlib.util.spec_from_file_location("make_acl", ROOT / "tools" / "make_acl.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_code_says(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`make acl` writes them; `--check` tells one that is not, and one that nobody makes."""
    monkeypatch.setattr("sys.argv", ["make_acl.py", "--check"])
    assert tool.main() == 0, "run `make acl`"
    monkeypatch.setattr(tool, "FOLDER", tmp_path)
    assert tool.main() == 1
    monkeypatch.setattr("sys.argv", ["make_acl.py"])
    assert tool.main() == 0
    (tmp_path / "nobody.acl").touch()
    monkeypatch.setattr("sys.argv", ["make_acl.py", "--check"])
    assert tool.main() == 1


def test_the_files_are_files_of_users(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server starts with them as they are, put together."""
    monkeypatch.delenv("EVENTQ_TEST_ACL", raising=False)  # users are in a file or on the command line
    users = tmp_path / "users.acl"
    users.write_text("".join(file.read_text() for file in acl_files(chosen_kind())) + "user default on nopass ~* &* +@all\n")
    server = make_server("--aclfile", str(users))
    with redis.Redis(host="127.0.0.1", port=server.port, username="eventq-admin", password="secret") as client:
        assert client.hget("eventq:queues", "any") is None


def test_what_reads_and_what_writes(stage: Stage) -> None:
    """The server says the same of every command that is used: what it reads or writes, and with which right to its key."""
    used = {command for role in ROLES for rule in written(role) for command in re.findall(r"\+(\S+?)\)?(?= |$)", rule)}
    for command in used:
        [info] = stage.client.execute_command("COMMAND", "INFO", command).values()
        is_writing = "write" in info["flags"]
        keyed = info["first_key_pos"] > 0
        if keyed:
            assert is_writing != (command in READS), command
    assert used >= (READS | TELLS) - ({"waitaof"} if chosen_kind() == "redis" else set())


async def test_the_command_line_prints_them(stage: Stage) -> None:
    """For one role as the file says it, for another prefix, for several roles at once; whoever does not exist is refused."""
    assert (await stage.run("acl", "worker")).out == (ROOT / "acl" / "worker.acl").read_text()
    shop = (await stage.run("acl", "producer", "--prefix", "shop")).out
    assert shop.startswith("user shop-producer on >secret resetchannels %R~shop:{*}:* ") and "eventq" not in shop
    both = (await stage.run("acl", "producer", "observer", "producer")).out
    assert both == acl_user("eventq-producer-observer", "secret", [Role.PRODUCER, Role.OBSERVER]) + "\n"
    stage.permit(*acl_rules([Role.PRODUCER, Role.OBSERVER]))
    assert (
        "'nobody': must be one of producer, fsync-producer, worker, observer, admin"
        in (await stage.run("acl", "nobody", code=2)).err
    )
    assert "prefix 'a b'" in (await stage.run("acl", "worker", "--prefix", "a b", code=2)).err
