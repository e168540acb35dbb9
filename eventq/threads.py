"""A pool of daemon threads for plain-function processors. Unlike concurrent.futures, a thread that never ends does not keep
the interpreter from exiting.
"""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


class ThreadPool:
    """Threads that are made when needed, up to as many as calls run at once, and kept."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0
        self._lock = threading.Lock()

    def call(self, loop: asyncio.AbstractEventLoop, function: Callable[[Any], Any], argument: Any) -> asyncio.Future[Any]:
        """Call the function in a thread, in the caller's context; the future gets what it returns or raises."""
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result, error = context.run(function, argument), None
            except BaseException as raised:  # handed over to the future, whatever it is
                result, error = None, raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_resolve, future, result, error)

        with self._lock:
            self._busy += 1
            grow = self._busy > self._threads
            self._threads += grow
        self._calls.put(work)
        if grow:
            threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
        return future

    def close(self) -> None:
        """Let threads end once they are idle; one in the middle of a call ends after it."""
        with self._lock:
            for _ in range(self._threads):
                self._calls.put(None)

    def _run(self) -> None:
        while (work := self._calls.get()) is not None:
            work()
            del work  # what it holds is not kept until the next call
            with self._lock:
                self._busy -= 1


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    elif isinstance(error, StopIteration | KeyboardInterrupt | GeneratorExit):
        # A future cannot hold StopIteration, and the others would end more than this call.
        replacement = RuntimeError(f"{type(error).__name__} was raised in a thread")
        replacement.__cause__ = error
        future.set_exception(replacement)
    else:
        future.set_exception(error)
