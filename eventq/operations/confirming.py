"""Asking a server whether it can confirm adds of a level, before anything is added."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventq.commands.inspect import server_info, server_settings
from eventq.durability import Durability
from eventq.errors import ConfigurationError, ScriptError, ServerRefused

if TYPE_CHECKING:
    from eventq.commands.core import Steps

_INSTEAD = "set appendonly yes and appendfsync always there, or use another server, or durability 'replica'"


def examine(level: Durability, where: str) -> Steps[None]:
    """Raise ConfigurationError where a server cannot confirm this level. Needs INFO and CONFIG GET, for `fsync` alone."""
    if level is not Durability.FSYNC:
        return
    said = f"durability 'fsync': {where}"
    info = yield server_info()
    name = info.get("server_name", "redis")
    version = info.get(f"{name}_version") or info.get("redis_version", "0")
    numbers = [int(part) for part in version.split(".")[:2]]
    if name == "redis" and numbers < [7, 2]:
        raise ConfigurationError(
            f"{said} is Redis {version}, which cannot confirm (7.2 and Valkey can): set appendonly yes and appendfsync always "
            "there, with which every add is on disk when it returns, and leave durability at 'memory'; or use another server"
        )
    if info.get("aof_enabled") != "1":
        raise ConfigurationError(f"{said} has no append-only file: {_INSTEAD}")
    policy = (yield server_settings(["appendfsync"])).get("appendfsync", "unknown")
    if policy == "always" or (policy == "everysec" and name == "redis" and numbers >= [8, 0]):
        return
    # https://github.com/redis/redis/pull/13793. Valkey 9.1 confirmed 6,085 writes within 3 seconds, and called fdatasync 3 times.
    why = "confirms before it has written to disk" if policy == "everysec" else "never confirms"
    raise ConfigurationError(f"{said} is {name} {version} with appendfsync {policy}, which {why}: {_INSTEAD}")


def unexamined(where: str, error: ServerRefused | ScriptError) -> ConfigurationError:
    """Return the error for a server that does not answer `examine`."""
    return ConfigurationError(
        f"durability 'fsync': {where} does not say its appendfsync, so what it confirms may be untrue; permit its user what "
        f"`eventq acl fsync-producer` prints (+info +config|get +waitaof): {error}"
    )
