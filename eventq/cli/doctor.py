"""`eventq doctor`: what is wrong with a server and its queues, and what to do about it. Nothing is changed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from eventq.cli.doctor_queue import examine_queue
from eventq.cli.doctor_server import examine_server
from eventq.cli.findings import PROBLEM, Finding
from eventq.cli.opening import Place, open_server
from eventq.cli.runtime import FATAL, OK, NotFound, run_async
from eventq.cli.tables import STYLES, Column, Styled, print_json, print_table
from eventq.client import AsyncRunner, Server
from eventq.commands.inspect import list_queues, queue_exists
from eventq.errors import ConfigurationError, EventqError
from eventq.keys import QueueKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.cli.tables import Cell

__all__ = ["run_doctor"]

_COLUMNS: Final = (Column("where"), Column("what"), Column("is"), Column("finding", wraps=True))


def run_doctor(names: Sequence[str], place: Place, *, as_json: bool) -> int:
    """Examine and print. Returns the exit code: 1 when there is a problem. Raises NotFound for a queue that is not there."""
    where, findings = run_async(lambda: _examine(names, place))
    if as_json:
        print_json({"server": where, "findings": [each.document() for each in findings]})
    else:
        print_table(_COLUMNS, list(itertools.chain.from_iterable(map(_rows, findings))))
        counts = [f"{level} {sum(each.level == level for each in findings)}" for level in ("ok", "unknown", "warning", "problem")]
        print("\n" + ", ".join(counts))
    return FATAL if any(each.level == PROBLEM for each in findings) else OK


def _rows(finding: Finding) -> list[list[Cell]]:
    style = STYLES.get(finding.level, "")
    rows: list[list[Cell]] = [[finding.where, finding.check, Styled(finding.level, style), finding.message]]
    if finding.advice:
        rows.append(["", "", "", f"-> {finding.advice}"])
    return rows


async def _examine(names: Sequence[str], place: Place) -> tuple[str, list[Finding]]:
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
        findings += await _examine_queue(name, listed.get(name), place, seen)
    return server.where, findings


async def _examine_queue(name: str, tag: str | None, place: Place, seen: set[str]) -> list[Finding]:
    try:
        keys = QueueKeys(name, prefix=place.prefix, tag=tag or place.tag)
    except ConfigurationError as error:
        if tag is None:
            raise
        return [
            Finding("server", "queues", PROBLEM, f"{place.prefix}:queues lists what cannot be a queue: {error}", "HDEL it there")
        ]
    runner: AsyncRunner = AsyncRunner(Server(place.url, keys["meta"]), client_name="eventq-cli")
    try:
        if not await runner.run_verb(queue_exists(keys)):
            if tag is None:
                raise NotFound(f"there is no queue {name!r}; `eventq queues` lists those there are")
            return []  # listed, and nothing was ever added
        return [*await examine_server(runner, seen), *await examine_queue(runner, keys)]
    except EventqError as error:
        return [Finding(name, "queue", PROBLEM, str(error))]
    finally:
        await runner.close()
