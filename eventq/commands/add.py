"""Adding jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from eventq.commands.core import Command, indexes
from eventq.limits import CALL_BYTES, CALL_JOBS, INLINE_DATA_BYTES
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from eventq.keys import QueueKeys
    from eventq.options import CompiledOptions


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """One job on its way in. `place` and `header` as in CompiledOptions; `own_id` when the caller chose the id.

    `place`, `header` and `spec` are those of `options`.
    """

    id: str
    name: str
    trace: str
    header: str
    place: str
    spec: str
    data: str
    own_id: bool
    options: CompiledOptions

    @property
    def size(self) -> int:
        """Roughly how much of a call it takes, in bytes."""
        return len(self.data) + len(self.spec) + len(self.trace) + 160


class Added(msgspec.Struct, frozen=True, gc=False):
    """When the jobs were stored (ms, Redis' clock), and the indexes of those whose id existed already."""

    ms: int
    existing: list[int]

    def times(self, size: int) -> list[int | None]:
        """Return for each of so many jobs when it was stored, None for one whose id existed."""
        times: list[int | None] = [self.ms] * size
        for index in self.existing:
            times[index] = None
        return times


def add_jobs(keys: QueueKeys, records: Sequence[NewRecord]) -> Command[Added]:
    """Store at most 500 jobs, all or nothing."""
    script = load_script("add_jobs")
    args: list[str | int] = [len(records), "1" if any(record.own_id for record in records) else "0"]
    for record in records:
        if len(record.data) > INLINE_DATA_BYTES:
            head, apart, body = f"{record.header}d", record.data, f"{record.spec}\n"
        else:
            head, apart, body = record.header, "", f"{record.spec}\n{record.data}"
        args += (record.id, record.name, record.trace, head, record.place, body, apart)
    return Command(script, script.keys(keys), args, lambda reply: Added(reply[2], indexes(reply[1])))


def chunks(records: Sequence[NewRecord]) -> Iterator[Sequence[NewRecord]]:
    """Cut jobs into calls of at most 500 and 1 MiB."""
    start, size = 0, 0
    for index, record in enumerate(records):
        size += record.size
        if index > start and (index - start == CALL_JOBS or size > CALL_BYTES):
            yield records[start:index]
            start, size = index, record.size
    if start < len(records):
        yield records[start:]
