"""Scripts on damaged columns: one that fails has written nothing, and a key of another type is named before anything is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError

from eventq.commands.work import Retention, release_jobs
from eventq.errors import EventqError, ServerRefused
from eventq.events import parse_entry
from eventq.keys import COLUMNS, type_of
from eventq.scripts import load_script

from ..fuzz.planting import plant, plant_type
from .lab import held, new, outcome
from .test_numbered_calls import WRITING

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from eventq.commands.core import Command
    from eventq.commands.work import Claimed

    from .lab import Lab

#: How a column that a case leaves empty gets something in it.
FILL: dict[str, Callable[[str], tuple[str, ...]]] = {
    "hash": lambda key: ("HSET", key, "a", "b"),
    "zset": lambda key: ("ZADD", key, "1", "a"),
    "list": lambda key: ("RPUSH", key, "a"),
    "stream": lambda key: ("XADD", key, "*", "a", "b"),
}


@pytest.mark.parametrize("script", WRITING)
def test_a_key_of_another_type_is_named_before_anything_is_written(lab: Lab, redis_client: redis.Redis, script: str) -> None:
    """In the first call of a writer; the sweep looks with every call. Only `meta` and `calls` are Redis' own to refuse."""
    lab.sound = False
    command = WRITING[script].prepare(lab)
    for column in command.script.columns:
        key = lab.keys[column]
        if not redis_client.exists(key):
            lab.redis(*FILL[type_of(column)](key))
        redis_client.rename(key, f"{key}:kept")
        what = plant_type(redis_client, key)
        before = _stored(lab, redis_client)
        writers = ("sweeper", "another") if script == "sweep_queue" else ("another",)
        for writer in writers:
            with pytest.raises((ServerRefused, ResponseError), match="WRONGTYPE|another type") as caught:
                lab.call(command, writer)
            assert column in ("meta", "calls") or key in str(caught.value), what
        assert _stored(lab, redis_client) == before, what
        redis_client.delete(key)
        redis_client.rename(f"{key}:kept", key)


def _damage(lab: Lab, client: redis.Redis, script: str, seed: int) -> None:
    """Plant one damage in a random column that the script uses, and call it: by a writer that is known, and by a new one."""
    dice = random.Random(f"{script} {seed}")
    command = WRITING[script].prepare(lab)
    what = plant(client, lab.keys, dice.choice(command.script.columns), dice)
    _call(lab, client, command, f"seed {seed}: {what}")


def _call(lab: Lab, client: redis.Redis, command: Command[Any], what: str) -> None:
    """Make the call, as a writer that is known and as a new one."""
    for writer in ("writer", "another"):
        before = _stored(lab, client)
        refused: Exception | None = None
        try:
            lab.call(command, writer)
        except (EventqError, ResponseError) as error:
            refused = error
        if refused is not None:
            assert _stored(lab, client) == before, f"{command.script.name} failed half-way: {what}: {refused}"
            assert isinstance(refused, EventqError), f"{command.script.name} failed: {what}: {refused}"


@pytest.mark.parametrize("script", WRITING)
def test_damaged_fields_break_no_script(lab: Lab, redis_client: redis.Redis, script: str) -> None:
    """Every field of a column, one column after the other: the call does its work or says why it does not, and is whole."""
    lab.sound = False
    columns = load_script(script).columns
    for column in [column for column in columns if type_of(column) == "hash"]:
        command = WRITING[script].prepare(lab)
        fields: list[bytes] = redis_client.hkeys(lab.keys[column])  # type: ignore[assignment]
        for field in set(fields) - {b"layout", b"clock_offset"}:
            redis_client.hset(lab.keys[column], field, b"1x \xff")
        _call(lab, redis_client, command, f"garbage in {column}")
        _clear(lab, redis_client)


@pytest.mark.full
@pytest.mark.parametrize("script", WRITING)
def test_a_damaged_field_breaks_no_script_for_long(lab: Lab, redis_client: redis.Redis, script: str) -> None:
    """The same with other seeds each time; a failure names its seed."""
    lab.sound = False
    first = random.SystemRandom().randrange(10**9)
    for seed in range(first, first + 200):
        _damage(lab, redis_client, script, seed)
        _clear(lab, redis_client)


def _clear(lab: Lab, client: redis.Redis) -> None:
    client.delete(*[lab.keys[column] for column in COLUMNS])


def _stored(lab: Lab, client: redis.Redis) -> str:
    """Return all that is stored, in one round trip; of a key of another type what Redis says to that."""
    with client.pipeline(transaction=False) as reads:
        for column in COLUMNS:
            key = lab.keys[column]
            match type_of(column):
                case "hash":
                    reads.hgetall(key)
                case "list":
                    reads.lrange(key, 0, -1)
                case "zset":
                    reads.zrange(key, 0, -1, withscores=True)
                case _:
                    reads.xrange(key)
        answers: list[Any] = reads.execute(raise_on_error=False)
    return "\n".join(repr(sorted(each.items()) if isinstance(each, dict) else each) for each in answers)


@pytest.mark.parametrize("number", ["inf", "-inf", "nan", "-7", "1.5", "1e300", "9007199254740992", "x"])
def test_a_number_of_the_queue_that_is_none_begins_anew(lab: Lab, number: str) -> None:
    """Events are counted on from there, no two runs have one fence, and what is kept by age comes to its end."""
    lab.sound = False
    rules = Retention((-1, 60_000), (-1, 60_000))
    lab.add(new(), new(), new())
    lab.settle(outcome(lab.claim().jobs[0]))
    lab.advance(61)
    for field in ("seq", "event_bytes", "aged_at", "swept_at", "late_sweeps", "short_grace_at"):
        lab.redis("HSET", lab.keys["meta"], field, number)
    first, second = lab.claim().jobs[0], lab.claim().jobs[0]
    lab.sweep()
    lab.settle(outcome(first), outcome(second), rules=rules)
    assert 0 < first.fence < second.fence < 100
    assert 0 < float(lab.meta("seq") or 0) < 100
    assert 0 < float(lab.meta("event_bytes") or 0) < 10_000
    assert set(lab.members("completed")) == {first.id, second.id}
    assert lab.meta("swept_at") == str(int(lab.meta("swept_at") or 0))
    lab.sweep()
    assert lab.meta("late_sweeps") == "0" and float(lab.meta("short_grace_at") or -1) in (0, 1.5)


def _come_to(lab: Lab, what: str, jobs: list[Claimed]) -> None:
    """Let running jobs come to this, all in one call."""
    match what:
        case "released":
            lab.call(release_jobs(lab.keys, [held(job) for job in jobs]))
        case "stalled":
            lab.expire_leases()
            lab.sweep()
        case _:
            lab.settle(*[outcome(job, what, 5000 if what in ("retry", "postpone") else "") for job in jobs])


@pytest.mark.parametrize("number", ["300000000000000", "9" * 20, "9" * 400], ids=["late", "long", "endless"])
@pytest.mark.parametrize("what", ["completed", "retry", "postpone", "failed", "released", "stalled"])
def test_a_number_of_one_job_spoils_no_event_of_others(lab: Lab, redis_client: redis.Redis, what: str, number: str) -> None:
    """Events of one call stand in one JSON text: whatever is damaged in a job's times and counts, all of it is read."""
    lab.sound = False
    for column, at in [*(("runs", at) for at in range(2, 9)), *(("jobs", at) for at in (1, 2))]:
        for is_early in (True, False):
            lab.add(*[new(attempts=3) for _ in range(3)])
            jobs = lab.claim(3).jobs
            if not is_early:
                _come_to(lab, what, jobs)
            gap = " " if column == "runs" else "\t"
            text = lab.redis("HGET", lab.keys[column], jobs[1].id).split(gap)
            lab.redis("HSET", lab.keys[column], jobs[1].id, gap.join([*text[:at], number, *text[at + 1 :]]))
            if is_early:
                _come_to(lab, what, jobs)
            lab.advance(6)
            lab.sweep()
            lab.claim(3)
            for entry in lab.entries():
                assert parse_entry(lab.keys.name, entry.fields), (column, at, is_early)
            _clear(lab, redis_client)
