"""How permissions are read off the code, and that no call was forgotten."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pkgutil import iter_modules

from eventq import commands, permissions
from eventq.permissions import ROLES, Role, commands_inside
from eventq.scripts import Script, script_names

#: Plain commands that no role names, and why.
ELSEWHERE = {"inspect.server_info": "every connection asks for it before its first call"}


def test_every_script_is_somebodys() -> None:
    """One that no role has could be called by nobody but the administrator of the server; they have all of them."""
    assert {name for calls in ROLES.values() for name in calls.scripts} == set(script_names())
    assert set(ROLES[Role.ADMIN].scripts) == set(script_names())


def test_every_plain_command_is_somebodys() -> None:
    """Each function that makes one is named in the table of roles, or here."""
    made: set[str] = set()
    for module in iter_modules(commands.__path__):
        functions = inspect.getmembers(import_module(f"eventq.commands.{module.name}"), inspect.isfunction)
        made |= {
            f"{module.name}.{name}"
            for name, function in functions
            if str(function.__annotations__.get("return", "")).startswith("Verb[")
        }
    named = set(re.findall(r"\b\w+\.\w+(?=\()", inspect.getsource(permissions)))
    assert made - named == set(ELSEWHERE)
    assert len(made) > 30


def test_what_the_text_of_a_script_says() -> None:
    """Each call in it, with the column it is given: one that is chosen by a condition, or is in a variable, too."""
    keys = "#!lua\n-- KEYS: meta wait completed\n"
    script = Script(
        "any",
        keys
        + "local verb = newest and 'ZREVRANGE' or 'ZRANGE' -- redis.call('KEYS', meta_key)\n"
        + "redis.call(head and 'LPUSH' or 'RPUSH', wait_key, 1) redis.call(verb, KEYS[3], 0, 1) redis.call('TIME')\n",
        "",
        ("meta", "wait", "completed"),
    )
    assert commands_inside(script) == {("lpush", "wait"), ("rpush", "wait"), ("zrevrange", ""), ("zrange", ""), ("time", "")}


def test_what_a_function_of_a_script_is_given() -> None:
    """Its commands are on the columns that its uses name, in another function too; none where it is never used."""
    text = (
        "#!lua\n-- KEYS: meta totals jobs\n"
        "local function add(key, n)\n  if redis.pcall('HINCRBY', key, n) then return end\n"
        "  redis.call('HSET', key, n)\n  redis.call('TIME')\nend\n"
        "local function twice(key, n)\n  add(meta_key, n)\n  redis.call('HDEL', key, n)\nend\n"
        "local function never(key)\n  redis.call('DEL', key)\nend\n"
        "add(totals_key, 1)\ntwice(KEYS[3], 1)\nfor _, key in ipairs(KEYS) do redis.call('TYPE', key) end\n"
    )
    given = {(command, column) for command in ("hincrby", "hset") for column in ("meta", "totals")}
    found = commands_inside(Script("any", text, "", ("meta", "totals", "jobs")))
    assert found == given | {("time", ""), ("hdel", ""), ("type", "")}
