"""The server's half of `eventq doctor`: kind, patches, persistence, eviction, memory, replicas, latency, slow calls of ours."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from eventq.cli.findings import OK, PROBLEM, UNKNOWN, WARNING, Finding, some
from eventq.cli.patches import MAINTAINED, lacking, least_patched
from eventq.cli.text import age, seconds
from eventq.commands.inspect import ping, server_info, server_settings, slow_log
from eventq.errors import ScriptError, ServerRefused
from eventq.scripts import load_script, script_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventq.client import AsyncRunner
    from eventq.commands.core import Verb
    from eventq.commands.inspect import SlowCall

__all__ = ["examine_server"]

R = TypeVar("R")
_SETTINGS: Final = ("appendfsync", "maxmemory-policy", "min-replicas-to-write", "save")
_PINGS: Final = 200
#: Seconds an answer may take: workers renew leases and claim work by such calls.
_SLOW_PING: Final = 0.02
_VERY_SLOW_PING: Final = 0.2
#: Seconds a script of ours may take before it is worth a word.
_SLOW_SCRIPT: Final = 0.02
_SLOW_ENTRIES: Final = 128
#: Share of maxmemory (or of the machine's) that is used.
_FULL: Final = 0.9
_NEARLY_FULL: Final = 0.75


async def examine_server(runner: AsyncRunner, seen: set[str]) -> list[Finding]:
    """Examine the server of this runner, in some 200 round trips of which all but a few are PINGs.

    seen: the servers that were examined already (`run_id`), and this one from now on: in a Cluster, queues have several.
    """
    info = await runner.run_verb(server_info())
    if (run_id := info.get("run_id", "")) in seen:
        return []
    seen.add(run_id)
    where = f"node {info.get('tcp_port', '?')}" if info.get("cluster_enabled") == "1" else "server"
    return [replace(each, where=where) for each in await _examine(runner, info)]


async def _examine(runner: AsyncRunner, info: dict[str, str]) -> list[Finding]:
    settings = await _permitted(runner, server_settings(_SETTINGS))
    entries = await _permitted(runner, slow_log(_SLOW_ENTRIES))
    return [
        _kind(info),
        _patches(info),
        *_persistence(info, settings),
        _eviction(info, settings),
        _memory(info),
        _replicas(info, settings),
        await _latency(runner),
        _slow_calls(entries, int(time.time())),
    ]


async def _permitted(runner: AsyncRunner, verb: Verb[R]) -> R | None:
    """Return the answer, None where the server does not give it: no permission, or the command is renamed."""
    try:
        return await runner.run_verb(verb)
    except (ServerRefused, ScriptError):
        return None


def _found(check: str, level: str, message: str, advice: str = "") -> Finding:
    return Finding("server", check, level, message, advice)


def _name_and_version(info: dict[str, str]) -> tuple[str, str]:
    name = info.get("server_name", "redis")
    return name, info.get(f"{name}_version") or info.get("redis_version", "?")


def _kind(info: dict[str, str]) -> Finding:
    name, version = _name_and_version(info)
    mode = "cluster" if info.get("cluster_enabled") == "1" else info.get("redis_mode", info.get("server_mode", "standalone"))
    return _found("version", OK, f"{name} {version}, {mode}, up for {age(_number(info, 'uptime_in_seconds'))}")


def _patches(info: dict[str, str]) -> Finding:
    name, version = _name_and_version(info)
    if name not in MAINTAINED:
        return _found("patches", UNKNOWN, f"which flaws {name} {version} has is not known here")
    least, names = least_patched(name, version), lacking(name, version)
    if not names:
        return _found("patches", OK, f"{name} {version} has the fixes for the flaws that SECURITY.md lists")
    to = f"{name} {least}" if least else f"a release of {name} that still gets fixes"
    message = f"{name} {version}: whoever may run commands there can run code on its machine ({some(names)})"
    return _found("patches", WARNING, message, f"upgrade to {to}, unless whoever packaged yours has put the fixes in")


def _persistence(info: dict[str, str], settings: dict[str, str] | None) -> Iterator[Finding]:
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield _found(
            "persistence", PROBLEM, "the last snapshot failed", "see the server's log: mostly a full disk, or no memory to fork"
        )
    if info.get("aof_last_write_status", "ok") != "ok":
        yield _found(
            "persistence", PROBLEM, "the last write of the append-only file failed", "see the server's log: mostly a full disk"
        )
    if info.get("aof_enabled") == "1":
        how = (settings or {}).get("appendfsync")
        kept = {
            "always": "every write is kept",
            "everysec": "a crash loses a second at most",
            "no": "a crash loses what the system has not written",
        }
        yield _found(
            "persistence", OK, f"append-only file, appendfsync {how or 'unknown'}{f': {kept[how]}' if how in kept else ''}"
        )
        return
    advice = "set appendonly yes, where jobs must survive a restart"
    if settings is None or "save" not in settings:
        yield _found(
            "persistence", UNKNOWN, "no append-only file; whether snapshots are made is not permitted to know (CONFIG)", advice
        )
    elif settings["save"]:
        changes, since = info.get("rdb_changes_since_last_save", "?"), time.time() - _number(info, "rdb_last_save_time")
        message = f"snapshots only: a crash now loses {changes} changes, those of the last {age(since)}"
        yield _found("persistence", WARNING, message, advice)
    else:
        yield _found("persistence", WARNING, "nothing is kept: a restart of the server loses every job", advice)


def _eviction(info: dict[str, str], settings: dict[str, str] | None) -> Finding:
    policy = info.get("maxmemory_policy") or (settings or {}).get("maxmemory-policy", "")
    if not policy:
        return _found("eviction", UNKNOWN, "the server does not say its maxmemory-policy")
    if policy.startswith("allkeys"):
        message = f"maxmemory-policy {policy}: one evicted key is a whole column of a queue"
        return _found("eviction", PROBLEM, message, "CONFIG SET maxmemory-policy noeviction")
    return _found("eviction", OK, f"maxmemory-policy {policy}: no queue is evicted")


def _memory(info: dict[str, str]) -> Finding:
    used, most, machine = (_number(info, name) for name in ("used_memory", "maxmemory", "total_system_memory"))
    limit, what = (most, "maxmemory") if most else (machine, "the machine's memory; maxmemory is not set")
    if not limit:
        return _found("memory", UNKNOWN, f"{_size(used)} used, of an unknown limit")
    share = used / limit
    message = f"{_size(used)} used, {share:.0%} of {_size(limit)} ({what})"
    advice = "more memory, shorter retention (remove_on_complete, remove_on_fail), or `eventq clean`"
    if share >= _NEARLY_FULL:
        return _found("memory", PROBLEM if share >= _FULL else WARNING, message, f"a full server refuses new jobs: {advice}")
    return _found("memory", OK, message)


def _replicas(info: dict[str, str], settings: dict[str, str] | None) -> Finding:
    count = int(_number(info, "connected_slaves"))
    if not count:
        return _found("replicas", OK, "none: what survives a crash is what persistence keeps")
    least = (settings or {}).get("min-replicas-to-write")
    if least is None:
        return _found("replicas", UNKNOWN, f"{count} connected; min-replicas-to-write is not permitted to know (CONFIG)")
    if least == "0":
        message = (
            f"{count} connected, min-replicas-to-write 0: after a failover the old primary may still take jobs that are lost"
        )
        return _found("replicas", WARNING, message, "set min-replicas-to-write 1")
    return _found("replicas", OK, f"{count} connected, min-replicas-to-write {least}")


async def _latency(runner: AsyncRunner) -> Finding:
    times: list[float] = []
    try:
        for _ in range(_PINGS):
            began = time.perf_counter()
            await runner.run_verb(ping())
            times.append(time.perf_counter() - began)
    except ServerRefused as error:  # where a snapshot failed, Redis answers even PING so
        return _found("latency", PROBLEM, str(error), "the server takes no jobs until it can save again: see its log")
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    message = f"PING takes {_short(p50)} (p50), {_short(p99)} (p99) from here"
    if p99 < _SLOW_PING:
        return _found("latency", OK, message)
    level = PROBLEM if p50 >= _VERY_SLOW_PING else WARNING
    return _found("latency", level, message, "look for slow commands (SLOWLOG GET), swapping, a busy processor or a far network")


def _slow_calls(entries: list[SlowCall] | None, now: int) -> Finding:
    if entries is None:
        return _found("slow log", UNKNOWN, "is not permitted to read (SLOWLOG)")
    names = {load_script(name).sha: name for name in script_names()}
    ours = [(names[sha], each) for each in entries if (sha := _sha(each)) in names]
    slow = [(name, each) for name, each in ours if each.took_us >= _SLOW_SCRIPT * 1e6]
    if not slow:
        return _found(
            "slow log", OK, f"none of our calls took {_SLOW_SCRIPT * 1000:.0f} ms among its latest {len(entries)} entries"
        )
    name, worst = max(slow, key=lambda pair: pair[1].took_us)
    took = f"the slowest {seconds(worst.took_us / 1e6)} ({name}, {age(now - worst.at)} ago)"
    advice = "one now and then is a rehash of a large column or a fork; many: give the server a faster or less shared processor"
    return _found("slow log", WARNING, f"{len(slow)} of our calls took over {_SLOW_SCRIPT * 1000:.0f} ms, {took}", advice)


def _sha(call: SlowCall) -> str:
    verb, sha = [*call.words, "", ""][:2]
    return sha if verb.upper() in ("EVALSHA", "EVALSHA_RO") else ""


def _number(info: dict[str, str], name: str) -> float:
    try:
        return float(info.get(name, "0"))
    except ValueError:
        return 0.0


def _short(value: float) -> str:
    return f"{value * 1000:.2f} ms" if value < 0.1 else seconds(value)


def _size(value: float) -> str:
    return f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.1f} MiB"
