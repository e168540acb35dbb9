"""The Lua scripts as text: headers that say what is there, includes that exist, the few things only one file may do."""

from __future__ import annotations

import hashlib
import re
from importlib.resources import files
from pathlib import Path

import pytest

from eventq import scripts
from eventq.errors import ScriptError
from eventq.events import STREAM_EVENTS
from eventq.keys import COLUMNS, QueueKeys
from eventq.scripts import Script, load_script, script_names

FOLDER = Path(str(files("eventq"))) / "lua"
INCLUDES = {path.stem: path.read_text() for path in sorted((FOLDER / "include").glob("*.lua"))}
SCRIPTS = {path.stem: path.read_text() for path in sorted(FOLDER.glob("*.lua"))}
EVERY_FILE = SCRIPTS | {f"include/{name}": text for name, text in INCLUDES.items()}
MOST_LINES = 120
#: What is allowed out of memory frees or settles; what adds is refused there; what reads may not write.
ADDING = (
    "add_jobs",
    "add_log",
    "change_delay",
    "change_priority",
    "promote_jobs",
    "retry_jobs",
    "update_data",
    "fire_schedule",
    "set_schedule",
)
REPORTING = "report_events"
READING = (
    "count_jobs",
    "count_priorities",
    "examine_jobs",
    "get_jobs",
    "get_schedules",
    "list_finished",
    "list_jobs",
    "observe_queue",
)
#: It removes the records of calls with all the rest: a repetition is known by the epoch.
ENDING = "obliterate_queue"
FLAGS = (
    dict.fromkeys(SCRIPTS, "#!lua flags=allow-oom")
    | dict.fromkeys(ADDING, "#!lua")
    | dict.fromkeys(READING, "#!lua flags=no-writes")
)


def header(name: str) -> str:
    """Return the comment a script begins with."""
    return "\n".join(line for line in SCRIPTS[name].split("\nlocal ")[0].splitlines()[1:])


def code(text: str) -> str:
    """Return Lua without its comments; includes stay."""
    return re.sub(r"--(?! include: ).*", "", text)


def whole(name: str) -> str:
    """Return a script with its includes as they ship, whatever tests put in their place."""
    text = SCRIPTS[name]
    while found := re.search(r"-- include: (\w+)", text):
        text = text.replace(found[0], INCLUDES[found[1]])
    return code(text)


def test_there_are_scripts() -> None:
    """The names are the files', and the tests below look at all of them."""
    assert script_names() == sorted(SCRIPTS)
    assert {"add_jobs", "settle_and_claim", "sweep_queue"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_flags(name: str) -> None:
    """Each script begins with the flags of what it does."""
    assert SCRIPTS[name].splitlines()[0] == FLAGS[name]


@pytest.mark.parametrize("name", SCRIPTS)
def test_headers(name: str) -> None:
    """Each header lists keys, arguments, replies and events, in that order, in complete lines."""
    lines = [line.strip("- ") for line in header(name).splitlines()]
    labels = [label for line in lines for label in re.findall(r"(?:^|\. )(KEYS|ARGV|Reply|Events):", line)]
    assert labels == ["KEYS", "ARGV", "Reply", "Events"]
    numbered = name not in READING
    assert ("STALE" in header(name), "LAYOUT" in header(name)) == (numbered, True)
    assert bool(re.search(r"ARGV: writer, number\b", header(name))) is numbered
    assert ("-- include: call\n" in SCRIPTS[name], "-- include: layout\n" in SCRIPTS[name]) == (numbered, not numbered)


@pytest.mark.parametrize("name", SCRIPTS)
def test_keys(name: str) -> None:
    """The KEYS line names every key that is used, in the order it is used in, and each local is named after its column."""
    columns = load_script(name).columns
    assert set(columns) <= set(COLUMNS)
    assert len(set(columns)) == len(columns)
    text = whole(name)
    used = {int(index) for index in re.findall(r"KEYS\[(\d+)\]", text)} | _looped(text)
    assert used == set(range(1, len(columns) + 1))
    for names, values in re.findall(r"^local ([\w, ]+_key) = (KEYS\[[^\n]+)$", text, re.MULTILINE):
        indexes = [int(index) for index in re.findall(r"KEYS\[(\d+)\]", values)]
        assert [columns[index - 1] for index in indexes] == [word.removesuffix("_key") for word in names.split(", ")]


def _looped(text: str) -> set[int]:
    """Return the keys that a loop takes by number."""
    found = re.search(r"for index = (\d+), (\d+) do [^\n]*KEYS\[index\]", text)
    return set(range(int(found[1]), int(found[2]) + 1)) if found else set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_key_is_declared_in_vain(name: str) -> None:
    """Every key that a script is given is used by it: what is declared is what an ACL and a cluster must allow."""
    text = whole(name)
    idle = [key for key in re.findall(r"\b\w+_key\b", text) if len(re.findall(rf"\b{key}\b", text)) == 1]
    assert idle == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_events_are_those_of_the_header(name: str) -> None:
    """The Events line names what the script emits, no less and no more, and all of it is in the catalogue."""
    said = re.search(r"^-- Events: (.+)$", SCRIPTS[name], re.MULTILINE)
    assert said
    kinds = set() if said[1] == "none" else set(said[1].split(", "))
    assert kinds <= set(STREAM_EVENTS)
    if name == REPORTING:
        assert re.findall(r"\bemit\(([^,]*)", SCRIPTS[name]) == ["ARGV[3]"], "what is no transition is said by the caller"
    else:
        assert kinds == set(re.findall(r"\bemit\('(\w+)'", whole(name)))


def test_every_event_of_the_catalogue_is_emitted() -> None:
    """A kind exists when its transition does; what is no transition has a script of its own."""
    emitted = {kind for text in EVERY_FILE.values() for kind in re.findall(r"\bemit\('(\w+)'", text)}
    reported = re.search(r"^-- Events: (.+)$", SCRIPTS[REPORTING], re.MULTILINE)
    assert reported
    assert emitted.isdisjoint(reported[1].split(", "))
    assert emitted | set(reported[1].split(", ")) == set(STREAM_EVENTS)


@pytest.mark.parametrize("name", EVERY_FILE)
def test_length(name: str) -> None:
    """A file is read on two screens."""
    assert len(EVERY_FILE[name].splitlines()) <= MOST_LINES


@pytest.mark.parametrize(
    ("word", "only"),
    [
        ("'XADD'", {"include/emit", ENDING}),  # which keeps the last entry that was emitted
        ("'TIME'", {"include/clock"}),
        ("CALL_KEPT_MS =", {"include/call"}),
        ("ZADD', marker_key", {"include/wake", "include/arm_due"}),
    ],
)
def test_what_only_one_file_does(word: str, only: set[str]) -> None:
    """One writer of the stream, one clock, one call record, one marker (and one more for what is due first)."""
    assert {name for name, text in EVERY_FILE.items() if word in code(text)} == only


@pytest.mark.parametrize("name", [name for name in SCRIPTS if "writer, number" in SCRIPTS[name] and name != ENDING])
def test_a_numbered_call_is_opened_and_closed(name: str) -> None:
    """It says what a repeated call gets, and stores the reply of a first one."""
    text = code(SCRIPTS[name])
    assert re.search(r"\breplayed\b", text)
    assert text.count("close_call(") == 1


def test_reading_writes_nothing() -> None:
    """A script that says no-writes uses reading commands only."""
    allowed = {"HGET", "HGETALL", "HMGET", "LLEN", "ZCARD", "ZCOUNT", "LRANGE", "ZRANGE", "ZREVRANGEBYSCORE", "ZRANGEBYSCORE"}
    allowed |= {"TIME", "XLEN", "XRANGE", "HEXISTS", "HLEN", "ZMSCORE", "ZSCORE"}
    for name in READING:
        assert set(re.findall(r"redis\.call\('(\w+)'", whole(name))) <= allowed


def test_includes_exist_and_are_used() -> None:
    """Every include that is named is a file, every file is named by a script, directly or through another."""
    named = {name: set(re.findall(r"-- include: (\w+)", text)) for name, text in EVERY_FILE.items()}
    assert set().union(*named.values()) == set(INCLUDES)
    reached = set().union(*(named[name] for name in SCRIPTS))
    while more := set().union(*(named[f"include/{name}"] for name in reached)) - reached:
        reached |= more
    assert reached == set(INCLUDES)


def test_what_ships_has_no_test_clock() -> None:
    """Time can be moved in tests only."""
    assert not [name for name, text in EVERY_FILE.items() if "clock_offset" in text]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_loaded_script(name: str) -> None:
    """Its text is whole, its digest is what Redis takes of it, its keys are the columns of the queue that is asked for."""
    script = load_script(name)
    assert "-- include:" not in script.text
    assert script.sha == hashlib.sha1(script.text.encode()).hexdigest()
    keys = QueueKeys("mail", prefix="p", tag="t")
    assert script.keys(keys) == tuple(f"p:{{t}}:mail:{column}" for column in script.columns)
    assert load_script(name) is script


def test_an_include_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts that were loaded before are loaded anew, and only those with the include change."""
    monkeypatch.setattr(scripts, "_replaced", dict(scripts._replaced))
    before, other = load_script("pause_queue"), load_script("count_jobs")
    try:
        scripts.replace_include("wake", "-- another text\n")
        after = load_script("pause_queue")
        assert "-- another text" in after.text
        assert after.sha != before.sha
        assert load_script("count_jobs").sha == other.sha
    finally:
        load_script.cache_clear()


def test_a_script_without_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A header that cannot be read is an error of ours, found when the script is loaded."""
    monkeypatch.setattr(scripts, "_read", lambda *path: "#!lua\n-- Does nothing.\nreturn 1\n")
    with pytest.raises(ScriptError, match="script broken: no KEYS line"):
        load_script.__wrapped__("broken")


def test_scripts_are_values() -> None:
    """Two scripts of one text are equal, and none can be changed."""
    script = load_script("pause_queue")
    assert script == Script(script.name, script.text, script.sha, script.columns)
    with pytest.raises(AttributeError):
        script.sha = ""  # type: ignore[misc]
