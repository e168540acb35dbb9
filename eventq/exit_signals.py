"""SIGTERM and SIGINT ask a worker to stop, once with grace and once more without."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def exit_signals(stop: Callable[[], None]) -> Generator[None, None, None]:
    """Call `stop` at each of these signals while this lasts. In another thread than the main one: do nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)


async def unless(stopping: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Await the work, and raise what it raises, but cancel it as soon as the event is set."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait([working, waiting], return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait([working, waiting])
