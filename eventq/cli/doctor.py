"""`eventq doctor`: what is wrong with a server and its queues, and what to do about it. Nothing is changed but by --repair."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Final, TypeVar

from eventq.cli.confirm import ask, need_consent
from eventq.cli.doctor_queue import examine_queue
from eventq.cli.doctor_repair import examine_all, plan_of, repair_queue
from eventq.cli.doctor_server import examine_server
from eventq.cli.findings import PROBLEM, Finding
from eventq.cli.opening import Place, open_server
from eventq.cli.runtime import FATAL, OK, NotFound, run_async, say
from eventq.cli.tables import STYLES, Column, Styled, print_json, print_table
from eventq.cli.text import plain
from eventq.client import AsyncRunner, Server
from eventq.commands.inspect import list_queues, queue_exists
from eventq.errors import ConfigurationError, EventqError
from eventq.keys import QueueKeys

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence

    from eventq.cli.doctor_repair import Mended, Treatment
    from eventq.cli.tables import Cell

__all__ = ["run_doctor"]

R = TypeVar("R")

_COLUMNS: Final = (Column("where"), Column("what"), Column("is"), Column("finding", wraps=True))


def run_doctor(names: Sequence[str], place: Place, treatment: Treatment | None, *, as_json: bool) -> int:
    """Examine and print; with a treatment all of it, and mend it first if that is wanted.

    Returns the exit code: 1 when there is a problem, or it was declined. Raises NotFound for a queue that is not there.
    """
    mended: list[Mended] | None = None
    if treatment is not None and treatment.repair:
        mended = _repair(names, place, treatment)
        if mended is None:
            say("declined; nothing was changed")
            return FATAL
    where, findings = run_async(lambda: _examine(names, place, treatment))
    if as_json:
        document: dict[str, Any] = {"server": where, "findings": [each.document() for each in findings]}
        print_json(document if mended is None else {**document, "mended": [each.document() for each in mended]})
    else:
        for each in mended or ():
            print(plain(each.line))
        if mended is not None:
            print("" if mended else "nothing to mend\n")
        print_table(_COLUMNS, list(itertools.chain.from_iterable(map(_rows, findings))))
        counts = [f"{level} {sum(each.level == level for each in findings)}" for level in ("ok", "unknown", "warning", "problem")]
        print("\n" + ", ".join(counts))
    return FATAL if any(each.level == PROBLEM for each in findings) else OK


def _repair(names: Sequence[str], place: Place, treatment: Treatment) -> list[Mended] | None:
    """Mend, after asking where that is needed; None when it was declined."""
    if not treatment.yes:
        need_consent("doctor --repair", "look with --all")

        async def plan(runner: AsyncRunner, keys: QueueKeys) -> str:
            planned = plan_of(await examine_all(runner, keys, treatment.away_ms), lost_jobs=treatment.lost_jobs)
            return planned and f"queue {keys.name}: {planned}"

        # Asked between two loops: Ctrl-C at a question must end it at once.
        plans = [each for each in run_async(lambda: _of_each(names, place, plan)) if each]
        if not plans:
            return []
        if not ask(f"{'; '.join(plans)}?"):
            return None
    found = run_async(lambda: _of_each(names, place, lambda runner, keys: repair_queue(runner, keys, treatment)))
    return list(itertools.chain.from_iterable(found))


async def _of_each(
    names: Sequence[str], place: Place, act: Callable[[AsyncRunner, QueueKeys], Coroutine[Any, Any, R]]
) -> list[R]:
    """Do something to each queue that is there; return what it comes to. What is no queue, an examination tells."""
    async with open_server(place) as runner:
        listed = await runner.run_verb(list_queues(place.prefix))
    done: list[R] = []
    for name in names or sorted(listed):
        try:
            keys = QueueKeys(name, prefix=place.prefix, tag=listed.get(name) or place.tag)
        except ConfigurationError:
            continue
        async with _runner(keys, place) as runner:
            if await runner.run_verb(queue_exists(keys)):
                done.append(await act(runner, keys))
    return done


@contextlib.asynccontextmanager
async def _runner(keys: QueueKeys, place: Place) -> AsyncGenerator[AsyncRunner]:
    runner: AsyncRunner = AsyncRunner(Server(place.url, keys["meta"]), client_name="eventq-cli")
    try:
        yield runner
    finally:
        await runner.close()


def _rows(finding: Finding) -> list[list[Cell]]:
    style = STYLES.get(finding.level, "")
    rows: list[list[Cell]] = [[finding.where, finding.check, Styled(finding.level, style), finding.message]]
    if finding.advice:
        rows.append(["", "", "", f"-> {finding.advice}"])
    return rows


async def _examine(names: Sequence[str], place: Place, treatment: Treatment | None) -> tuple[str, list[Finding]]:
    server = Server(place.url)  # a URL that cannot be right is wrong usage, and told before anything else
    findings: list[Finding] = []
    seen: set[str] = set()
    async with open_server(place) as runner:
        try:
            findings += await examine_server(runner, seen)
        except ConfigurationError as error:  # what every client refuses: too old, evicts, is a replica
            return server.where, [Finding("server", "server", PROBLEM, str(error))]
        listed = await runner.run_verb(list_queues(place.prefix))
    for name in names or sorted(listed):
        findings += await _examine_queue(name, listed.get(name), place, seen, treatment)
    return server.where, findings


async def _examine_queue(name: str, tag: str | None, place: Place, seen: set[str], treatment: Treatment | None) -> list[Finding]:
    try:
        keys = QueueKeys(name, prefix=place.prefix, tag=tag or place.tag)
    except ConfigurationError as error:
        if tag is None:
            raise
        return [
            Finding("server", "queues", PROBLEM, f"{place.prefix}:queues lists what cannot be a queue: {error}", "HDEL it there")
        ]
    try:
        async with _runner(keys, place) as runner:
            if not await runner.run_verb(queue_exists(keys)):
                if tag is None:
                    raise NotFound(f"there is no queue {name!r}; `eventq queues` lists those there are")
                return []  # listed, and nothing was ever added
            return [*await examine_server(runner, seen), *await examine_queue(runner, keys, treatment)]
    except EventqError as error:
        return [Finding(name, "queue", PROBLEM, str(error))]
