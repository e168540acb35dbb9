"""What every command shares: the event loop, signals, exit codes, output that cannot fail on a character."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import io
import logging
import os
import signal
import sys
import traceback
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventq.cli.text import plain
from eventq.errors import ConfigurationError, EventqError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

T = TypeVar("T")
log: Final = logging.getLogger("eventq.worker")

OK: Final = 0
FATAL: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
_HERE: Final = os.path.dirname(__file__)
_IMPORTLIB: Final = os.path.dirname(importlib.__file__)


class UsageError(Exception):
    """The command was called wrongly; the message says what, which value, what to do."""


class NotFound(Exception):
    """What was asked for is not there; the message says what, and where to look."""


class BrokenTarget(Exception):
    """A module could not be imported; what it raised is the cause."""


def version_line() -> str:
    """Return `eventq X`."""
    try:
        return f"eventq {version('eventq')}"
    except PackageNotFoundError:  # a source tree that was never installed
        return "eventq 0+unknown"


def say(message: str) -> None:
    """Tell the person at the terminal something that is not the command's output."""
    print(f"eventq: {plain(message)}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def exit_codes() -> Generator[None]:
    """Turn errors that are understood into one sentence and an exit code; others keep their traceback, and code 1."""
    _make_output_safe()
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # here, where a reader that is gone is no error, and not at the interpreter's end
    except (UsageError, ConfigurationError) as error:
        say(str(error))
        sys.exit(USAGE)
    except BrokenTarget as broken:
        _print_cause(broken)
        say(f"module {broken} cannot be imported")
        sys.exit(USAGE if isinstance(broken.__cause__, ConfigurationError) else FATAL)
    except (NotFound, EventqError) as error:
        say(str(error))
        sys.exit(FATAL)
    except BrokenPipeError:
        let_go_of_output()
        sys.exit(OK)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _print_cause(broken: BrokenTarget) -> None:
    """Print the traceback of what a module raised, from its own first line on."""
    cause = broken.__cause__
    trace = cause.__traceback__ if cause else None
    while trace is not None and _is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    traceback.print_exception(cause.with_traceback(trace) if cause else None)


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen ") or os.path.dirname(filename) in (_HERE, _IMPORTLIB)


def _make_output_safe() -> None:
    """Let characters that the terminal's encoding lacks come out as escapes instead of as an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def let_go_of_output() -> None:
    """After a broken pipe: point stdout at nothing, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run_async(main: Callable[[], Coroutine[Any, Any, T]], *, uvloop: bool | None = None) -> T:
    """Run a coroutine function to its end. uvloop: None takes it when installed, True insists (UsageError)."""
    with asyncio.Runner(loop_factory=_loop_factory(uvloop)) as runner:
        return runner.run(main())


async def leave_stragglers(error: Exception | None, seconds: float = 0.2, *, what: str = "processors") -> None:
    """End the process where tasks or threads go on in spite of being cancelled: the loop would wait for them at its own end.

    error: what the work ended with; it is told, and is the exit code. what: whose they are.
    """
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    # What asyncio.to_thread runs; nothing else cancels or ends it.
    threads = asyncio.ensure_future(asyncio.get_running_loop().shutdown_default_executor())
    pending = (await asyncio.wait({*tasks, threads}, timeout=seconds))[1]
    if pending:
        names = ", ".join(sorted("asyncio.to_thread" if task is threads else task.get_name() for task in pending)[:5])
        log.warning("%s go on although they are cancelled (%s): the process ends without them", what, names)
        if error is not None:
            say(str(error))
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(OK if error is None else FATAL)


def _loop_factory(uvloop: bool | None) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if uvloop is False:
        return None
    if find_spec("uvloop") is None:
        if uvloop:
            raise UsageError('--uvloop: uvloop is not installed; pip install "eventq[uvloop]", or leave the option out')
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


async def until_stopped(work: Coroutine[Any, Any, T]) -> T | None:
    """Await the work; SIGTERM or SIGINT cancels it, and then the answer is None."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    for each in numbers:
        loop.add_signal_handler(each, task.cancel)
    try:
        await asyncio.wait([task])
    finally:
        for each in numbers:
            loop.remove_signal_handler(each)
    return None if task.cancelled() else task.result()
