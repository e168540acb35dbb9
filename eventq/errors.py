"""Every error eventq raises. The class says who must act; identity is in attributes; the cause is chained.

EventqError
├─ ConfigurationError      whoever wrote the call or the settings, before any I/O: bad name, option, URL, server too old
├─ InvalidJob              whoever adds: data of the wrong type, too large, not serialisable
├─ BulkAddError            whoever adds: some calls of a bulk add were refused; `.added` says what is in
├─ Unconfirmed             whoever adds: the jobs are in, but not yet as durable as was asked for; add again under the same id
├─ QueueUnavailable        whoever runs Redis: unreachable, timed out, still loading
├─ ServerRefused           whoever runs Redis: out of memory, no permission, read only
├─ LayoutMismatch          whoever deploys: the queue was written by another layout
├─ QueueActive             the caller: jobs are running, so the queue is not obliterated
├─ ScheduleNotFound        the caller: no schedule of that id; carries `.queue` and `.schedule_id`
├─ BadSignature            whoever watches: a job or schedule is not what somebody with a key signed; carries `.queue` and `.id`
├─ ScriptError             us: a script answered what its parser does not know
└─ JobError                the caller; carries `.queue` and `.job_id`
   ├─ JobNotFound          ├─ InvalidState   ├─ LeaseLost   └─ JobFailed (the job whose result was awaited)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta


class EventqError(Exception):
    """The root of everything eventq raises by itself."""


class ConfigurationError(EventqError, ValueError):
    """A name, option, URL or server setting is not acceptable. Raised before anything is sent or stored."""


class InvalidJob(EventqError, ValueError):
    """Data, name or options of a job are refused. Nothing was stored."""


class BulkAddError(EventqError):
    """Some calls of a bulk add failed. `added` holds the jobs that are in the queue, `confirmed` those of them that are known to
    be as durable as was asked for; the cause is chained.
    """

    def __init__(self, message: str, added: Sequence[Any], confirmed: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.added = added
        self.confirmed = added if confirmed is None else confirmed


class Unconfirmed(EventqError):
    """Jobs are stored and will probably run, but that they are as durable as was asked for was not confirmed in time.

    `job_ids` are theirs, `durability` is the level, `copies` of `wanted` were confirmed. Adding again under the same ids is safe.
    """

    def __init__(self, reason: str, *, queue: str, job_ids: Sequence[str], durability: str, copies: int, wanted: int) -> None:
        subject = (
            f"job {job_ids[0]!r} of queue {queue!r} is" if len(job_ids) == 1 else f"{len(job_ids)} jobs of queue {queue!r} are"
        )
        super().__init__(
            f"{subject} stored and will probably run, but {reason}; adding again under the same id (job_id=) is safe"
        )
        self.reason = reason
        self.queue = queue
        self.job_ids = job_ids
        self.durability = durability
        self.copies = copies
        self.wanted = wanted

    def about(self, job_id: str) -> Unconfirmed:
        """Return the same about one of its jobs."""
        found = Unconfirmed(
            self.reason, queue=self.queue, job_ids=[job_id], durability=self.durability, copies=self.copies, wanted=self.wanted
        )
        found.__cause__ = self.__cause__
        return found


class QueueUnavailable(EventqError):
    """Redis cannot be reached, or did not answer in time. Whether a write took effect is unknown."""


class ServerRefused(EventqError):
    """Redis answered and refuses: out of memory, no permission, read only. Nothing was written by this call.

    But where a first try got no answer and whoever calls was shut out then, or the queue damaged: of that try nobody knows.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class LayoutMismatch(EventqError):
    """The queue in Redis was written with another layout than this version of eventq knows. Nothing was changed."""


class ScriptError(EventqError):
    """A script answered something its parser does not know: a bug in eventq."""


class QueueActive(EventqError):
    """Jobs of the queue are running, so it is not obliterated. Nothing was changed."""


class ScheduleNotFound(EventqError):
    """The queue has no schedule of that id: it was never upserted, or has been removed."""

    def __init__(self, message: str, *, queue: str, schedule_id: str) -> None:
        super().__init__(message)
        self.queue = queue
        self.schedule_id = schedule_id


class JobError(EventqError):
    """Something about one job; `queue` and `job_id` name it."""

    def __init__(self, message: str, *, queue: str, job_id: str) -> None:
        super().__init__(message)
        self.queue = queue
        self.job_id = job_id


class JobNotFound(JobError):
    """No job of that id is stored: it was never added, or has been removed."""


class InvalidState(JobError):
    """The job is in a state in which this cannot be done. Nothing was changed."""


class LeaseLost(JobError):
    """This worker no longer holds the job: its lease ran out and the job was given away."""


class JobFailed(JobError):
    """The job whose result was awaited ended failed. `type`, `reason` and `traceback` are the processor's error."""

    def __init__(self, message: str, *, queue: str, job_id: str, type: str, reason: str, traceback: str = "") -> None:
        super().__init__(message, queue=queue, job_id=job_id)
        self.type = type
        self.reason = reason
        self.traceback = traceback


class Unrecoverable(Exception):
    """Raised by a processor: fail this job now, whatever attempts are left."""


class BadSignature(EventqError, Unrecoverable):
    """What is stored is not what a holder of a signing key stored: unsigned, altered, moved, or signed by a key unknown here.

    A job like that fails with this error, a schedule is not fired. `queue` and `id` (of job or schedule) name it.
    """

    def __init__(self, message: str, *, queue: str, id: str) -> None:
        super().__init__(message)
        self.queue = queue
        self.id = id


class Retry(Exception):
    """Raised by a processor: this attempt failed; run the job again after `delay` (seconds), if attempts are left.

    Without a delay the job's own backoff decides.
    """

    def __init__(self, message: str = "", *, delay: float | timedelta | None = None) -> None:
        super().__init__(message or "the processor asked for a retry")
        self.delay = delay


class Postpone(Exception):
    """Raised by a processor: not now. The job is delayed by `delay` (seconds) and then runs again; no attempt is charged.

    With `update_data` before it a job goes on in steps. `max_starts` of the job bounds how often it may be started.
    """

    def __init__(self, message: str = "", *, delay: float | timedelta) -> None:
        super().__init__(message or "the processor postponed the job")
        self.delay = delay
