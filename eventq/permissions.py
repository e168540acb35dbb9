"""What each role may do in Redis, as an ACL user: which calls it makes, and the commands and keys that these come to. Pure.

Redis checks the commands inside of a script against the user who called it, and every key a script is given. So the rules
are read off the scripts' text and the commands as they are built. What only reads is called by EVALSHA_RO, for which reading the
keys is enough; EVALSHA asks for reading and writing all of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from eventq.commands import confirm, events, inspect, manage, read, repair
from eventq.commands.core import Verb
from eventq.durability import Durability
from eventq.errors import ScriptError
from eventq.keys import QueueKeys
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from eventq.scripts import Script

__all__ = ["Role", "acl_rules", "acl_user"]


class Role(StrEnum):
    """Who uses a queue: for whom there is a set of permissions."""

    PRODUCER = "producer"
    FSYNC_PRODUCER = "fsync-producer"
    WORKER = "worker"
    OBSERVER = "observer"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Calls:
    """What a role sends: scripts by name, and plain commands as examples. is_narrow: it writes to the columns it has to only."""

    scripts: tuple[str, ...]
    verbs: tuple[Verb[Any], ...]
    is_narrow: bool = False

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.scripts + other.scripts, self.verbs + other.verbs, self.is_narrow)


_QUEUE: Final = QueueKeys("queue")
#: Reading jobs and live events, waiting for results.
_READING: Final = Calls(
    ("get_jobs", "list_jobs", "count_jobs", "count_priorities", "get_schedules"),
    (
        manage.listed_tag(_QUEUE),
        read.is_paused(_QUEUE),
        read.job_logs(_QUEUE, ""),
        events.stream_state(_QUEUE),
        events.read_events(_QUEUE, "0", 1, 1),
        events.last_entry(_QUEUE),
        events.entry_after(_QUEUE, "0"),
    ),
)
#: What the command line, doctor, exporter and tracer look at besides, and the place of a durable reader.
_OBSERVING: Final = _READING + Calls(
    ("observe_queue", "hold_consumer", "examine_jobs"),
    (
        events.server_time(),
        events.first_entry(_QUEUE),
        events.read_streams([(_QUEUE, "0")], 1, 1),
        events.entries_before(_QUEUE, "+", 1),
        inspect.list_queues("eventq"),
        inspect.queue_tag("eventq", ""),
        inspect.queue_exists(_QUEUE),
        inspect.ping(),
        inspect.queue_meta(_QUEUE),
        inspect.consumers(_QUEUE),
        inspect.stream_length(_QUEUE),
        inspect.hash_size(_QUEUE, "jobs"),
        inspect.line_length(_QUEUE),
        inspect.line_page(_QUEUE, 0, 1),
        inspect.set_page(_QUEUE, "completed", 0, 1),
        inspect.first_of_set(_QUEUE, "leases"),
        inspect.count_scores(_QUEUE, "leases", 0, 1),
        inspect.sample_hash(_QUEUE, "jobs", 1),
        inspect.sample_set(_QUEUE, "completed", 1),
        inspect.hash_values(_QUEUE, "jobs", [""]),
        inspect.set_scores(_QUEUE, "completed", [""]),
        repair.walk_hash(_QUEUE, "jobs", "0", 1),
        repair.walk_set(_QUEUE, "completed", "0", 1),
        repair.line_end(_QUEUE, 0, 1),
        repair.key_type(_QUEUE, "jobs"),
    ),
)


def _confirming(level: Durability) -> Verb[Any]:
    return Verb(tuple(confirm.Confirmation(level, 1).words), int)


_ADDING: Final = _READING + Calls(("add_jobs",), (read.register_queue(_QUEUE), _confirming(Durability.REPLICA)))
#: No part of every adding: Redis 7.0 reads no rules that name WAITAOF, and CONFIG GET shows the server's passwords.
_CONFIRMING_ON_DISK: Final = Calls((), (_confirming(Durability.FSYNC), inspect.server_settings(["appendfsync"])))
#: Processors add jobs, too; schedules are said by the application when it starts, which is mostly a worker.
_WORKING: Final = _ADDING + Calls(
    (
        *("settle_and_claim", "release_jobs", "renew_leases", "sweep_queue", "run_timers", "trim_events", "fire_schedule"),
        *("report_events", "report_worker", "update_data", "add_log", "set_schedule", "remove_schedule"),
    ),
    (read.wait_for_work(_QUEUE, 1), read.arm_marker(_QUEUE, "")),
)
_MANAGING: Final = Calls(
    (
        *("pause_queue", "resume_queue", "clean_jobs", "obliterate_queue", "retry_jobs", "promote_jobs", "remove_jobs"),
        *("change_delay", "change_priority", "clear_logs", "list_finished", "repair_jobs", "repair_line", "repair_upkeep"),
    ),
    (
        manage.unlist_queue(_QUEUE),
        manage.delayed_ids(_QUEUE, 0, 1),
        manage.delayed_count(_QUEUE),
        inspect.server_settings(["save"]),
        inspect.slow_log(1),
        # Shows the names of all keys of the server, whatever their prefix.
        repair.walk_keys("", "0", 1),
    ),
)
#: What each role calls.
ROLES: Final = {
    Role.PRODUCER: replace(_ADDING, is_narrow=True),
    Role.FSYNC_PRODUCER: replace(_ADDING + _CONFIRMING_ON_DISK, is_narrow=True),
    Role.WORKER: _WORKING,
    Role.OBSERVER: replace(_OBSERVING, is_narrow=True),
    Role.ADMIN: _WORKING + _OBSERVING + _MANAGING,
}
#: What a connection needs before its first call, and a script that the server does not know.
_CONNECTING: Final = ("client|setname", "info", "script|load", "select")
#: Commands that are permitted by their first argument.
_WITH_SUBCOMMANDS: Final = ("CONFIG", "SLOWLOG")
#: Commands that change nothing, of those that we use.
READS: Final = frozenset(
    "evalsha_ro exists hexists hget hgetall hlen hmget hrandfield hscan hvals llen lrange scan time type xlen xrange xread "
    "xrevrange zcard zcount zmscore zrandmember zrange zrangebyscore zrank zrevrange zrevrangebyscore zscan zscore ping wait "
    "waitaof config|get slowlog|get".split()
)
#: Commands that change something and tell what was or is there, for which Redis wants both.
TELLS: Final = frozenset("bzpopmin hincrby lpop zpopmin".split())
#: What stands in a script's text and is never done there: the include it comes with is used in another way.
_NEVER: Final = {
    # Whoever holds a name writes nothing but that where there is no queue, and tells no events.
    "hold_consumer": {("hset", "meta")},
}
_CALL: Final = re.compile(r"redis\.p?call\(([^,()]+)(?:, (?:(\w+)_key\b|(key)\b)?)?")
#: What a function of a script calls the column it is given.
_ARGUMENT: Final = "key"
#: Such a function: its name, and what it does.
_TOLD: Final = re.compile(r"^local function (\w+)\(key\b(.*?)^end$", re.MULTILINE | re.DOTALL)
_WORD: Final = re.compile(r"'([A-Z_]+)'")
#: The list of queues is no column.
_LIST: Final = "queues"


def acl_user(name: str, password: str, roles: Sequence[Role], prefix: str = "eventq") -> str:
    """Return the line of `users.acl` for a user who has these roles."""
    return f"user {name} on >{password} resetchannels {' '.join(acl_rules(roles, prefix))}"


def acl_rules(roles: Sequence[Role], prefix: str = "eventq") -> list[str]:
    """Return key patterns, commands and selectors for these roles. Raises ConfigurationError for what cannot be a prefix."""
    prefix = QueueKeys("any", prefix=prefix).prefix
    wide = [ROLES[role] for role in roles if not ROLES[role].is_narrow]
    narrow = [ROLES[role] for role in roles if ROLES[role].is_narrow]
    commands = {*_CONNECTING, *(command for calls in wide for command, _ in _grants(calls))}
    commands |= {command for calls in narrow for command, _ in _grants(calls) if command in READS}
    access = "~" if wide else "%R~"
    patterns = [f"{access}{prefix}:{{*}}:*", f"{access}{prefix}:{_LIST}"]
    selectors = dict.fromkeys(selector for calls in narrow for selector in _selectors(calls, prefix))
    return [*patterns, *(f"+{command}" for command in sorted(commands)), *selectors]


def _grants(calls: Calls) -> set[tuple[str, str]]:
    """Return each command that these calls come to, with the column it is given ('' where none is known)."""
    found = {_of_verb(verb) for verb in calls.verbs}
    for name in calls.scripts:
        script = load_script(name)
        found |= {("evalsha_ro" if script.reads_only else "evalsha", ""), *commands_inside(script)}
    return found


def _selectors(calls: Calls, prefix: str) -> Iterator[str]:
    """Return what may be written: each script with exactly its keys, each command inside of it with the columns it is used on."""
    for name in calls.scripts:
        script = load_script(name)
        if not script.reads_only:
            yield _selector(["evalsha"], "~", script.columns, prefix)
    columns: dict[str, set[str]] = {}
    for command, column in _grants(calls):
        if command not in READS and command != "evalsha":
            columns.setdefault(command, set()).add(column)
    alike: dict[tuple[str, ...], list[str]] = {}
    for command, written in sorted(columns.items()):
        if "" in written:
            raise ScriptError(f"{command}: the text of a script does not say on which column")
        alike.setdefault(("~" if command in TELLS else "%W~", *sorted(written)), []).append(command)
    for (access, *names), commands in alike.items():
        yield _selector(commands, access, names, prefix)


def _selector(commands: Iterable[str], access: str, columns: Iterable[str], prefix: str) -> str:
    patterns = [f"{access}{prefix}:{_LIST}" if each == _LIST else f"{access}{prefix}:{{*}}:*:{each}" for each in columns]
    return f"({' '.join([*(f'+{command}' for command in commands), *patterns])})"


def _of_verb(verb: Verb[Any]) -> tuple[str, str]:
    head, first = str(verb.words[0]), str(verb.words[1]) if len(verb.words) > 1 else ""
    command = f"{head}|{first}" if head in _WITH_SUBCOMMANDS else head
    is_key = first.startswith(f"{_QUEUE.prefix}:")
    return command.lower(), first.rpartition(":")[2] if is_key else ""


def commands_inside(script: Script) -> set[tuple[str, str]]:
    """Return each command that the text of a script calls, with the column it is given ('' where the text does not say)."""
    code = re.sub(r"--.*", "", script.text)
    found = {(command, "" if column == _ARGUMENT else column) for command, column in _called(_TOLD.sub("", code), code)}
    for function, does in _TOLD.findall(code):
        columns = re.findall(rf"(?<!function )\b{function}\((?:(\w+)_key\b)?", code)
        for command, column in _called(does, code):
            found |= {(command, given) for given in columns} if column == _ARGUMENT else {(command, column)}
    return found - _NEVER.get(script.name, set())


def _called(part: str, code: str) -> set[tuple[str, str]]:
    found: set[tuple[str, str]] = set()
    for said, column, argument in _CALL.findall(part):
        words = _WORD.findall(said)
        if not words:  # a local that is one command or another
            words = [word for line in re.findall(rf"local {said}\b.*", code) for word in _WORD.findall(line)]
        found |= {(word.lower(), column or argument) for word in words}
    return found
