"""From `module:object` to something that can be run."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeGuard

from eventq.cli.runtime import BrokenTarget, UsageError
from eventq.job_queue import JobQueue
from eventq.worker import Worker

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["load_target", "resolve_target"]

_HELP = "give module:object, as in `eventq worker shop.jobs:worker`"


def load_target(target: str) -> Any:
    """Import the module and return the object. The current directory is importable. Raises UsageError."""
    module_name, colon, path = target.partition(":")
    if not colon or not module_name or not path:
        raise UsageError(f"{target!r} is not a target; {_HELP}")
    if module_name.endswith(".py") or not all(part.isidentifier() for part in (*module_name.split("."), *path.split("."))):
        raise UsageError(f"{target!r} is not a target: {_HELP}, in dotted names and without .py")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(module_name)
    try:
        return reduce(getattr, path.split("."), module)
    except AttributeError as error:
        raise UsageError(f"module {module_name!r} has no {path!r} ({error}); it has: {_public(module)}") from None


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise BrokenTarget(name) from error  # a module that it imports is missing
        raise UsageError(
            f"there is no module {error.name!r} (looked for in {os.getcwd()} and where Python looks); "
            "run eventq in the folder that holds it, or install it"
        ) from None
    except Exception as error:  # the module is somebody's code: what it raises is shown as it is
        raise BrokenTarget(name) from error


def _public(module: ModuleType) -> str:
    kinds = (Worker, JobQueue)
    found = [name for name, value in vars(module).items() if isinstance(value, kinds) or inspect.isfunction(value)]
    return ", ".join(sorted(name for name in found if not name.startswith("_"))) or "no worker and no function"


async def resolve_target(target: str, found: Any) -> Worker[Any, Any] | JobQueue[Any, Any]:
    """Return the Worker or JobQueue that the object is, or that it makes when called. Raises UsageError."""
    made: Any = found
    if not _is_runnable(found) and callable(found):
        _check_no_arguments(target, found)
        made = found()
        if inspect.isawaitable(made):
            made = await made
    if _is_runnable(made):
        return made
    how = f"is {_kind(found)}" if made is found else f"returned {_kind(made)}"
    raise UsageError(
        f"{target!r} {how}; it must be a Worker, a JobQueue, or a function without arguments that returns one of these"
    )


def _is_runnable(value: Any) -> TypeGuard[Worker[Any, Any] | JobQueue[Any, Any]]:
    return isinstance(value, Worker | JobQueue)


def _check_no_arguments(target: str, function: Any) -> None:
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise UsageError(
            f"{target!r} is called without arguments to make the worker, and cannot be: {error}; "
            "if it is a processor, name the Worker that runs it"
        ) from None
    except ValueError:  # a callable written in C may not say what it takes: calling it will tell
        return


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
