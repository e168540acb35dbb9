"""Confirming adds: what is asked after one, and what the answer comes to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from eventq.commands.add import Added, add_jobs
from eventq.durability import Durability
from eventq.errors import BulkAddError, EventqError, Unconfirmed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.commands.add import NewRecord
    from eventq.commands.core import Command
    from eventq.keys import QueueKeys

#: Copies that are waited for. With more, one replica that is down for a moment would leave every add unconfirmed.
COPIES: Final = 1
#: The longest that may be waited: a day. A socket of Python's waits for less than 25.
MAX_CONFIRM_MS: Final = 86_400_000
_WHERE: Final = {Durability.FSYNC: "on disk", Durability.REPLICA: "on a replica"}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What adds of a level wait for, and for how long at most (ms).

    WAIT and WAITAOF answer for what their own connection wrote last, with how many copies of it there are.
    """

    level: Durability
    timeout_ms: int

    @property
    def seconds(self) -> float:
        """How long the server may hold its answer back."""
        return self.timeout_ms / 1000

    @property
    def words(self) -> list[str | int]:
        """Return the command as it is sent."""
        if self.level is Durability.FSYNC:
            return ["WAITAOF", COPIES, 0, self.timeout_ms]
        return ["WAIT", COPIES, self.timeout_ms]

    def check(self, answer: Any, queue: str, job_ids: list[str]) -> None:
        """Raise Unconfirmed unless the answer counts enough copies; it may also be the server's refusal to count."""
        cause: Exception | None = None
        if isinstance(answer, Exception):
            cause, copies, how = answer, 0, f"the server answered: {answer}"
        else:
            copies = int(answer[0] if self.level is Durability.FSYNC else answer)
            how = f"{copies} of {COPIES} copies {_WHERE[self.level]}"
        if copies >= COPIES:
            return
        raise Unconfirmed(
            f"durability {self.level.value!r} was not confirmed within {self.seconds:g} seconds: {how}",
            queue=queue,
            job_ids=job_ids,
            durability=self.level.value,
            copies=copies,
            wanted=COPIES,
        ) from cause


def add_confirmed(confirmation: Confirmation, keys: QueueKeys, records: Sequence[NewRecord]) -> Command[Added]:
    """`add_jobs` for a runner that puts the confirmation's answer behind the script's reply. Reading may raise Unconfirmed."""
    command = add_jobs(keys, records)

    def parse(reply: list[Any]) -> Added:
        confirmation.check(reply[-1], keys.name, [record.id for record in records])
        return command.parse(reply)

    return replace(command, parse=parse)


def bulk_error(records: Sequence[NewRecord], confirmed: int, error: EventqError) -> BulkAddError:
    """Return what a bulk add raises whose first so many jobs went in as asked, and then came this error. Its jobs are ids."""
    stored, said = confirmed, ""
    if isinstance(error, Unconfirmed):
        stored += len(error.job_ids)
        said = f", {confirmed} of them confirmed"
    ids = [record.id for record in records[:stored]]
    message = f"{stored} of {len(records)} jobs were added{said}, then: {error}"
    return BulkAddError(message, ids, ids[:confirmed])


def told_to(job_id: str, error: Exception) -> Exception:
    """Return what the caller of one add is told of an error that its whole call came to."""
    return error.about(job_id) if isinstance(error, Unconfirmed) else error
