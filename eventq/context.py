"""What a queue, its jobs and its workers share: names, types, limits, rules, and one runner for everything but adding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, cast

import msgspec
from typing_extensions import TypeVar

from eventq.client import AsyncRunner, Server
from eventq.codec import Codec
from eventq.commands.add import NewRecord
from eventq.commands.work import Retention
from eventq.errors import ConfigurationError, InvalidJob, ServerRefused
from eventq.ids import new_id, random_text
from eventq.keys import QueueKeys, check_job_name
from eventq.limits import Limits
from eventq.operations import managing, reading
from eventq.options import KEEP_COMPLETED, KEEP_FAILED, JobOptions, queue_rule, with_baggage
from eventq.process import service_name
from eventq.signing import is_signed, signer_of, without_keys
from eventq.tracing import caller_baggage, caller_fragment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventq.errors import JobNotFound
    from eventq.records import Record, StoredJob
    from eventq.signing import SigningKeys

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)
_NO_OPTIONS = JobOptions()


class NewJob(msgspec.Struct, Generic[DataT], frozen=True):
    """One job of a bulk add."""

    name: str
    data: DataT = cast("Any", None)
    options: JobOptions | None = None


class BaseContext(Generic[DataT, ResultT]):
    """One queue on one server, whoever speaks to it. Opens nothing."""

    def __init__(
        self,
        name: str,
        data_type: Any,
        result_type: Any,
        *,
        url: str | None,
        prefix: str,
        tag: str | None,
        default_options: JobOptions | None,
        limits: Limits,
        signing_keys: SigningKeys | Mapping[str, bytes] | None,
    ) -> None:
        self.keys = QueueKeys(name, prefix=prefix, tag=tag)
        #: Who signs and verifies; None where jobs are not signed.
        self.signer = signer_of(signing_keys, self.keys)
        self.server = Server(url, self.keys["meta"])
        self.limits = limits
        if not isinstance(limits, Limits):
            raise ConfigurationError(f"limits {limits!r}: must be Limits")
        if default_options is not None and not isinstance(default_options, JobOptions):
            raise ConfigurationError(f"default_options {default_options!r}: must be JobOptions")
        if default_options is not None and default_options.job_id is not None:
            raise ConfigurationError(f"default_options job_id {default_options.job_id!r}: an id belongs to one job")
        self.default_options = default_options
        self.data: Codec[DataT] = Codec(data_type, what="job data", limit=limits.data, option="Limits.data")
        self.result: Codec[ResultT] = Codec(result_type, what="result", limit=limits.result, option="Limits.result")
        self._defaults = default_options or _NO_OPTIONS
        self.retention = Retention(
            queue_rule("remove_on_complete", self._defaults.remove_on_complete, KEEP_COMPLETED),
            queue_rule("remove_on_fail", self._defaults.remove_on_fail, KEEP_FAILED),
        )

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.keys.name

    def record(self, name: str, data: DataT, options: JobOptions | None) -> NewRecord:
        """Check everything about one job and return what is sent. Raises InvalidJob; nothing is stored."""
        return self._record(name, data, options, caller_fragment(service_name()), caller_baggage())

    def _record(self, name: str, data: DataT, options: JobOptions | None, trace: str, baggage: str) -> NewRecord:
        if options is not None and not isinstance(options, JobOptions):
            raise InvalidJob(f"options {options!r}: must be JobOptions")
        compiled = (self._defaults if options is None else options.over(self.default_options)).compiled
        job_id = compiled.job_id or new_id()
        spec = with_baggage(compiled.spec, baggage) if baggage else compiled.spec
        check_job_name(name)
        text = self.data.encode(data)
        return NewRecord(
            job_id,
            name,
            f"{trace},{compiled.trace}" if trace and compiled.trace else trace or compiled.trace,
            compiled.header,
            compiled.place,
            spec,
            text if self.signer is None else self.signer.seal_job(job_id, name, spec, text),
            compiled.job_id is not None,
            compiled,
        )

    def resealed(self, job_id: str, record: Record, data: DataT) -> str:
        """Return other data of a job as it is stored. Raises InvalidJob, and BadSignature for a job that is not as it was signed:
        to sign its data would be to sign whatever else was altered.
        """
        text = self.data.encode(data)
        if self.signer is not None:
            self.signer.open_job(job_id, record)
            return self.signer.seal_job(job_id, record.name, record.spec_text, text)
        if is_signed(record.data):
            raise without_keys("job", job_id, self.name)
        return text

    def records(self, jobs: Sequence[NewJob[DataT]]) -> list[NewRecord]:
        """Check many jobs. Raises InvalidJob that says which one it is; nothing is stored."""
        trace, baggage = caller_fragment(service_name()), caller_baggage()
        if trace and len(jobs) > 1:
            trace = f'{trace},"batch":"{random_text(10)}.{len(jobs)}"'
        records: list[NewRecord] = []
        for index, job in enumerate(jobs):
            if not isinstance(job, NewJob):
                raise InvalidJob(f"job {index} of {len(jobs)}: {type(job).__name__} is not a NewJob")
            try:
                records.append(self._record(job.name, job.data, job.options, trace, baggage))
            except InvalidJob as error:
                raise InvalidJob(f"job {index} of {len(jobs)}: {error}; nothing was added") from error
        return records

    def not_found(self, job_id: str) -> JobNotFound:
        """Return the error for a job that is not stored."""
        return reading.not_found(self.keys, job_id)


class QueueContext(BaseContext[DataT, ResultT]):
    """One queue on one server, spoken to from an event loop. Opens nothing until it is used."""

    def __init__(self, name: str, data_type: Any, result_type: Any, **settings: Any) -> None:
        super().__init__(name, data_type, result_type, **settings)
        self.runner = AsyncRunner(self.server)
        #: Whether this client has listed the queue for discovery.
        self.is_registered = False

    async def register(self) -> None:
        """List the queue for discovery, once per client. Raises ConfigurationError in another loop, or once closed."""
        self.runner.bind()
        if not self.is_registered:
            try:
                await self.runner.perform(managing.enlist(self.keys))
                self.is_registered = True
            except ServerRefused as error:
                # A server that takes no writes needs its workers: they start, and this is tried again later.
                if error.code not in ("OOM", "MISCONF"):
                    raise

    async def stored(self, job_id: str) -> StoredJob | None:
        """Read one job. One round trip. Raises UnreadableRecord."""
        return await self.runner.perform(reading.stored(self.keys, job_id))

    async def require(self, job_id: str) -> StoredJob:
        """Read one job. Raises JobNotFound."""
        return await self.runner.perform(reading.require(self.keys, job_id))
