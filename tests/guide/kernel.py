"""A page's Python session: takes blocks as JSON lines on stdin, answers with what each printed, like `python -m asyncio`.

Run as a program of its own. What a block raises is printed as the interpreter's last line of it.
"""

import ast
import asyncio
import builtins
import contextlib
import inspect
import io
import json
import logging
import os
import re
import sys
import traceback
import types
from typing import Any

#: Seconds an endless block has to print its output.
ENDLESS_SECONDS = 15.0


class Recorder(io.StringIO):
    """Standard output of one block. `matched` is set once it is what the block is to print; threads may write, too."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self.pattern = re.compile(pattern)
        self.loop = asyncio.get_running_loop()
        self.matched = asyncio.Event()
        self.write("")

    def write(self, text: str) -> int:
        """Take it and look."""
        written = super().write(text)
        now = self.matched.set if self.pattern.fullmatch(self.getvalue()) else self.matched.clear
        self.loop.call_soon_threadsafe(now)
        return written


async def run_block(block: dict[str, Any], namespace: dict[str, Any]) -> str:
    """Run one block in the session and return what it printed."""
    sys.stdout = recorder = Recorder(block["pattern"])
    try:
        compiled = compile(block["code"], block["name"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = types.FunctionType(compiled, namespace)()
        if inspect.iscoroutine(running):
            await (until_matched(running, recorder) if block["endless"] else running)
        with contextlib.suppress(TimeoutError):  # the answer shows what is missing
            await asyncio.wait_for(recorder.matched.wait(), block["late"])
    except Exception as error:
        recorder.write("".join(traceback.format_exception_only(error)))
    return recorder.getvalue()


async def until_matched(running: Any, recorder: Recorder) -> None:
    """Cancel what would never end once it has printed its output."""
    task = asyncio.ensure_future(running)
    matched = asyncio.ensure_future(recorder.matched.wait())
    await asyncio.wait([task, matched], timeout=ENDLESS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    matched.cancel()
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        await task
        raise AssertionError("the block is said to be endless, and ended")


async def close_all(namespace: dict[str, Any]) -> None:
    """Close what the page left open, workers before their queues."""
    found = [value for value in namespace.values() if not inspect.isclass(value) and hasattr(value, "close")]
    found = [value for value in found if inspect.iscoroutinefunction(value.close)]
    for value in sorted(found, key=lambda value: type(value).__name__ != "Worker"):
        await value.close()


async def main() -> None:
    """Run blocks until stdin ends."""
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.ERROR)  # pages show what is warned of; errors are nobody's plan
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": builtins}
    with os.fdopen(os.dup(1), "w") as answers:
        while line := await asyncio.to_thread(sys.stdin.readline):
            output = await run_block(json.loads(line), namespace)
            print(json.dumps(output), file=answers, flush=True)
        await close_all(namespace)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # the session imports the page's files, as a program beside them would
    asyncio.run(main())
