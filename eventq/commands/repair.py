"""Examining all that is stored of a queue, a slice at a time, and mending what does not fit together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from eventq.commands.core import Command, Verb, batch_reply
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys

#: A repair never ends a job, however often it stalled: what it finds says nothing about the job.
_ENDS_NONE: Final = 2**53


@dataclass(frozen=True, slots=True)
class Page:
    """What one step of a walk found: names and, of a hash, their texts. cursor: `0` at the end."""

    cursor: str
    names: list[str]
    texts: list[str]


@dataclass(frozen=True, slots=True)
class Look:
    """What a script found: a letter per job (those of lua/include/standing), how many holes `meta` says, how many there are."""

    letters: str
    said: str
    holes: str


def examine_jobs(keys: QueueKeys, ids: Sequence[str]) -> Command[Look]:
    """Say of at most 500 jobs whether each stands where it says, and how many holes there are."""
    script = load_script("examine_jobs")
    return Command(script, script.keys(keys), ids, _parse_look, numbered=False)


def repair_jobs(keys: QueueKeys, ids: Sequence[str], *, in_line: bool = False) -> Command[str]:
    """Mend at most 500 jobs that do not stand where they say. Returns the letter of what was found of each.

    in_line: all of them are known to stand in `wait`, so that one without a run never ran.
    """
    script = load_script("repair_jobs")
    return Command(script, script.keys(keys), [_ENDS_NONE, "1" if in_line else "0", len(ids), *ids], batch_reply)


def repair_line(keys: QueueKeys, jobs: Sequence[tuple[str, str]], *, recount: bool) -> Command[Look]:
    """Put at most 500 waiting jobs (id, run as it was read, '' for none) back in line. recount: and count its holes anew.

    Returns a letter per job (p put back, s not so any more), and the holes before and after.
    """
    script = load_script("repair_line")
    args: list[str | int] = ["1" if recount else "0", len(jobs), *(word for job in jobs for word in job)]
    return Command(script, script.keys(keys), args, _parse_look)


def repair_upkeep(keys: QueueKeys, what: str, names: Sequence[str], *, away_ms: int = 0) -> Command[str]:
    """Give records of calls or workers their timers, or forget durable readers (`what`: the column).

    Returns a letter per name: t timer set, r removed, s not so any more.
    """
    script = load_script("repair_upkeep")
    return Command(script, script.keys(keys), [what, away_ms, len(names), *names], batch_reply)


def walk_hash(keys: QueueKeys, column: str, cursor: str, count: int) -> Verb[Page]:
    """Read about so many fields of a hash with their texts. What stays there all the while is read at least once."""
    return Verb(("HSCAN", keys[column], cursor, "COUNT", count), lambda reply: _page(reply))


def walk_set(keys: QueueKeys, column: str, cursor: str, count: int) -> Verb[Page]:
    """Read about so many members of a sorted set. What stays there all the while is read at least once."""
    return Verb(("ZSCAN", keys[column], cursor, "COUNT", count), lambda reply: Page(str(reply[0]), list(reply[1][::2]), []))


def walk_keys(pattern: str, cursor: str, count: int) -> Verb[Page]:
    """Look at about so many keys of the server; read those of this pattern."""
    return Verb(("SCAN", cursor, "MATCH", pattern, "COUNT", count), lambda reply: Page(str(reply[0]), list(reply[1]), []))


def line_end(keys: QueueKeys, skipped: int, count: int) -> Verb[list[str]]:
    """Read entries of `wait` from its end, those before so many."""
    return Verb(("LRANGE", keys["wait"], -skipped - count, -skipped - 1), list)


def key_type(keys: QueueKeys, column: str) -> Verb[str]:
    """Read of what type a column is, `none` where it is not there."""
    return Verb(("TYPE", keys[column]), str)


def _parse_look(reply: list[Any]) -> Look:
    return Look(str(reply[1]), str(reply[2]), str(reply[3]))


def _page(reply: Any) -> Page:
    flat = reply[1]
    return Page(str(reply[0]), list(flat[::2]), list(flat[1::2]))
