"""Damage planted in what is stored of a queue, as somebody with access to Redis might do it, by mistake or on purpose."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import ResponseError

from eventq.keys import type_of

from .mutating import HOSTILE, mutate

if TYPE_CHECKING:
    from random import Random

    import redis

    from eventq.keys import QueueKeys

SCORES: Final = ("inf", "-inf", "1e300", "-1", "0", "4503599627370497.5", "1e15")


def plant_type(client: redis.Redis, key: str) -> str:
    """Put a key of another type in the place of a column; return what was done."""
    client.delete(key)
    client.set(key, b"\xff\x00planted")
    return f"{key} is a string"


def plant(client: redis.Redis, keys: QueueKeys, column: str, random: Random) -> str:
    """Damage one thing of a column; return what was done, for whoever has to understand what came of it."""
    key, kind = keys[column], type_of(column)
    try:
        what = {"hash": _hash, "list": _list, "zset": _zset, "stream": _stream}[kind](client, key, random)
    except ResponseError as error:  # what Redis itself does not take
        what = f"nothing ({error})"
    return f"{column}: {what}"


def _hash(client: redis.Redis, key: str, random: Random) -> str:
    stored: dict[bytes, bytes] = dict(client.hgetall(key))  # type: ignore[arg-type]
    stored.pop(b"clock_offset", None)  # the tests' own clock
    fields = sorted(stored)
    if not fields or random.random() < 0.1:
        name, value = random.choice(HOSTILE) or b"x", random.choice(HOSTILE)
        client.hset(key, name, value)
        return f"{name[:60]!r} = {value[:60]!r}"
    field = random.choice(fields)
    if random.random() < 0.1:
        client.hdel(key, field)
        name = mutate((field,), random.randrange)
        client.hset(key, name, stored[field])
        return f"{field[:60]!r} is now {name[:60]!r}"
    value = mutate((stored[field],), random.randrange) if random.random() < 0.6 else random.choice(HOSTILE)
    client.hset(key, field, value)
    return f"{field[:60]!r}: {stored[field][:200]!r} is now {value[:300]!r}"


def _list(client: redis.Redis, key: str, random: Random) -> str:
    entries: list[bytes] = client.lrange(key, 0, -1)  # type: ignore[assignment]
    if not entries or random.random() < 0.3:
        entry = random.choice(HOSTILE)
        (client.lpush if random.random() < 0.5 else client.rpush)(key, entry)
        return f"pushed {entry[:60]!r}"
    at = random.randrange(len(entries))
    entry = mutate((entries[at],), random.randrange)
    client.lset(key, at, entry)  # type: ignore[arg-type]
    return f"{entries[at]!r} is now {entry[:60]!r}"


def _zset(client: redis.Redis, key: str, random: Random) -> str:
    members: list[bytes] = client.zrange(key, 0, -1)  # type: ignore[assignment]
    if not members or random.random() < 0.3:
        member, score = random.choice(HOSTILE), random.choice(SCORES)
        client.zadd(key, {member: score})
        return f"added {member[:60]!r} at {score}"
    member = random.choice(members)
    if random.random() < 0.5:
        score = random.choice(SCORES)
        client.zadd(key, {member: score})
        return f"{member!r} stands at {score}"
    stands: Any = client.zscore(key, member)
    client.zrem(key, member)
    name = mutate((member,), random.randrange)
    client.zadd(key, {name: stands})
    return f"{member!r} is now {name[:60]!r}"


def _stream(client: redis.Redis, key: str, random: Random) -> str:
    newest: list[Any] = client.xrevrange(key, count=20)  # type: ignore[assignment]
    fields: dict[bytes, bytes] = dict(random.choice(newest)[1]) if newest else {b"kind": b"added", b"seq": b"1", b"n": b"1"}
    name = random.choice(sorted(fields))
    if random.random() < 0.1:
        fields.pop(name)
        fields = fields or {b"x": b""}
    else:
        fields[name] = mutate((fields[name],), random.randrange)
    client.xadd(key, fields)  # type: ignore[arg-type]
    return f"an entry whose {name!r} is {fields.get(name, b'not there')[:300]!r}"
