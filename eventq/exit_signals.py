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


#: Who is to be asked, by event loop: workers may share one.
_asked: Final[dict[asyncio.AbstractEventLoop, list[Callable[[], None]]]] = {}


@contextlib.contextmanager
def exit_signals(stop: Callable[[], None]) -> Generator[None, None, None]:
    """Call `stop` at each of these signals while this lasts, beside whoever else asked for it in this loop.

    In another thread than the main one: do nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    asked = _asked.setdefault(loop, [])
    asked.append(stop)
    if len(asked) == 1:
        for number in _SIGNALS:
            loop.add_signal_handler(number, _ask, loop)
    try:
        yield
    finally:
        asked.remove(stop)
        if not asked:
            del _asked[loop]
            for number in _SIGNALS:
                loop.remove_signal_handler(number)


def _ask(loop: asyncio.AbstractEventLoop) -> None:
    for stop in list(_asked.get(loop, ())):
        stop()


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
