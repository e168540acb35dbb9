"""Looking at a server and at what is stored, for the command line: plain commands that write nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from eventq.commands.core import Verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys


class SlowCall(msgspec.Struct, frozen=True):
    """One entry of the server's slow log. `at` is in seconds since the epoch, `took_us` in microseconds."""

    at: int
    took_us: int
    words: tuple[str, ...]


def list_queues(prefix: str) -> Verb[dict[str, str]]:
    """Read the list of queues: name -> tag."""
    return Verb(("HGETALL", f"{prefix}:queues"), _pairs)


def queue_tag(prefix: str, name: str) -> Verb[str | None]:
    """Read the tag of a queue, None for one that is not listed."""
    return Verb(("HGET", f"{prefix}:queues", name), lambda reply: reply)


def queue_exists(keys: QueueKeys) -> Verb[bool]:
    """Read whether anything was ever written to the queue."""
    return Verb(("EXISTS", keys["meta"], keys["jobs"]), lambda reply: reply > 0)


def ping() -> Verb[None]:
    """Ask for an answer."""
    return Verb(("PING",), lambda _: None)


def server_info() -> Verb[dict[str, str]]:
    """Read INFO."""
    return Verb(("INFO",), lambda text: dict(line.split(":", 1) for line in text.splitlines() if ":" in line))


def server_settings(names: Sequence[str]) -> Verb[dict[str, str]]:
    """Read settings by name; one that the server does not know is left out. Often not permitted."""
    return Verb(("CONFIG", "GET", *names), _pairs)


def slow_log(most: int) -> Verb[list[SlowCall]]:
    """Read the latest entries of the slow log. Often not permitted."""
    return Verb(("SLOWLOG", "GET", most), lambda reply: [SlowCall(each[1], each[2], tuple(each[3])) for each in reply])


def queue_meta(keys: QueueKeys) -> Verb[dict[str, str]]:
    """Read the queue's own numbers: layout, seq, event_bytes, paused, holes, swept_at."""
    return Verb(("HGETALL", keys["meta"]), _pairs)


def consumers(keys: QueueKeys) -> Verb[dict[str, str]]:
    """Read every durable reader, as stored: holder, hold ends ms, saved ms, epoch, entry id, seq, state."""
    return Verb(("HGETALL", keys["consumers"]), _pairs)


def stream_length(keys: QueueKeys) -> Verb[int]:
    """Count the entries of the stream."""
    return Verb(("XLEN", keys["events"]), int)


def hash_size(keys: QueueKeys, column: str) -> Verb[int]:
    """Count the fields of a column."""
    return Verb(("HLEN", keys[column]), int)


def line_length(keys: QueueKeys) -> Verb[int]:
    """Count the entries of `wait`, holes and all."""
    return Verb(("LLEN", keys["wait"]), int)


def line_page(keys: QueueKeys, start: int, count: int) -> Verb[list[str]]:
    """Read entries of `wait`, the next to be claimed first, holes and all."""
    return Verb(("LRANGE", keys["wait"], start, start + count - 1), list)


def set_page(keys: QueueKeys, column: str, start: int, count: int) -> Verb[list[str]]:
    """Read members of a sorted set, the lowest score first."""
    return Verb(("ZRANGE", keys[column], start, start + count - 1), list)


def first_of_set(keys: QueueKeys, column: str) -> Verb[tuple[str, float] | None]:
    """Read the member with the lowest score, and the score."""
    words = ("ZRANGE", keys[column], 0, 0, "WITHSCORES")
    return Verb(words, lambda reply: (reply[0], float(reply[1])) if reply else None)


def count_scores(keys: QueueKeys, column: str, low: str | int, high: str | int) -> Verb[int]:
    """Count the members of a sorted set by score, both ends included."""
    return Verb(("ZCOUNT", keys[column], low, high), int)


def sample_hash(keys: QueueKeys, column: str, most: int) -> Verb[list[str]]:
    """Read so many fields of a hash, chosen by chance; all of them when there are no more."""
    return Verb(("HRANDFIELD", keys[column], most), list)


def sample_set(keys: QueueKeys, column: str, most: int) -> Verb[list[str]]:
    """Read so many members of a sorted set, chosen by chance; all of them when there are no more."""
    return Verb(("ZRANDMEMBER", keys[column], most), list)


def hash_values(keys: QueueKeys, column: str, fields: Sequence[str]) -> Verb[list[str | None]]:
    """Read the values of fields, None for one that is not there."""
    return Verb(("HMGET", keys[column], *fields), list)


def set_scores(keys: QueueKeys, column: str, members: Sequence[str]) -> Verb[list[float | None]]:
    """Read the scores of members, None for one that is not there."""
    words = ("ZMSCORE", keys[column], *members)
    return Verb(words, lambda reply: [None if score is None else float(score) for score in reply])


def _pairs(reply: Any) -> dict[str, str]:
    # RESP2 answers a flat list.
    return dict(zip(reply[::2], reply[1::2], strict=True))
