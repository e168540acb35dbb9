"""Which function runs a job: one for all, or several by job name; async ones on the loop, plain ones in threads."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, cast

from eventq.errors import ConfigurationError
from eventq.keys import check_job_name


class UnknownJobName(Exception):
    """This worker has no processor for a job of that name."""


class Processors:
    """The registry of one worker."""

    def __init__(self, processor: Callable[[Any], Any] | Mapping[str, Callable[[Any], Any]]) -> None:
        self._one: tuple[Callable[[Any], Any], bool] | None = None
        self._by_name: dict[str, tuple[Callable[[Any], Any], bool]] = {}
        if isinstance(processor, Mapping):
            if not processor:
                raise ConfigurationError("processors {}: give at least one function by job name")
            named = cast("Mapping[str, Any]", processor)
            self._by_name = {check_job_name(name): _entry(function) for name, function in named.items()}
        else:
            self._one = _entry(processor)

    @property
    def any_plain(self) -> bool:
        """Whether threads are needed."""
        return any(not is_async for _, is_async in [*self._by_name.values(), *([self._one] if self._one else [])])

    @property
    def functions(self) -> dict[str, str]:
        """The fully qualified name of what runs a job, by job name; '' is every name. A hundred at most."""
        named = {"": self._one} if self._one else self._by_name
        return {name: _full_name(entry[0]) for name, entry in list(named.items())[:100]}

    def find(self, name: str) -> tuple[Callable[[Any], Any], bool]:
        """Return the function and whether it is async. Raises UnknownJobName."""
        entry = self._one or self._by_name.get(name)
        if entry is None:
            raise UnknownJobName(f"no processor for job name {name!r} on this worker; it has: {', '.join(self._by_name)}")
        return entry


def _full_name(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    named: Any = function if hasattr(function, "__qualname__") else cast("Any", type(function))
    return f"{named.__module__}.{named.__qualname__}"[:256]


def _entry(function: Any) -> tuple[Callable[[Any], Any], bool]:
    if not callable(function):
        raise ConfigurationError(f"processor {function!r}: must be callable with one job")
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    called = getattr(inner, "__call__", None)  # noqa: B004 - a callable object may have an async __call__
    return function, inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(called)
