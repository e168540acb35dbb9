"""Refusals that several places share: whole numbers, worker names, strategies."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Mapping
from typing import Final, cast

from eventq.errors import ConfigurationError, EventqError
from eventq.ids import random_text

_WORKER_NAME: Final = re.compile(r"[A-Za-z0-9._:@-]{1,128}\Z")


def check_whole(what: str, value: object, low: int, high: int, *, error: type[EventqError] = ConfigurationError) -> int:
    """Return a whole number from low to high; raise `error` naming what, the value and the limits."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise error(f"{what} {value!r}: must be a whole number from {low} to {high}")
    return value


def check_worker_name(name: object) -> str:
    """Return a worker's name; without one host, process and four random characters. Raises ConfigurationError."""
    if name is None:
        host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
        return f"{host}:{os.getpid()}:{random_text(4)}"
    if not isinstance(name, str) or not _WORKER_NAME.match(name):
        raise ConfigurationError(f"worker name {name!r}: must be 1 to 128 of A-Z a-z 0-9 . _ : @ -")
    return name


def check_strategies(strategies: object) -> Mapping[str, Callable[..., object]]:
    """Return the backoff strategies by name; none for None. Raises ConfigurationError."""
    if strategies is None:
        return {}
    if not isinstance(strategies, Mapping):
        raise ConfigurationError(f"backoffs {strategies!r}: must be a mapping of names to strategies")
    for name, strategy in cast("Mapping[object, object]", strategies).items():
        if not isinstance(name, str) or not callable(strategy):
            raise ConfigurationError(f"backoffs {name!r}: {strategy!r} must be callable with job and error")
    return cast("Mapping[str, Callable[..., object]]", strategies)
