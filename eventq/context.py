"""What a queue, its jobs and its workers share: names, types, limits, rules, and one runner for everything but adding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from eventq.client import AsyncRunner, Server
from eventq.codec import Codec
from eventq.commands.read import get_jobs, register_queue
from eventq.commands.work import Retention
from eventq.errors import ConfigurationError, JobNotFound, ServerRefused
from eventq.keys import QueueKeys, check_job_id
from eventq.limits import Limits
from eventq.options import KEEP_COMPLETED, KEEP_FAILED, JobOptions, queue_rule
from eventq.records import UnreadableRecord

if TYPE_CHECKING:
    from eventq.records import StoredJob

DataT = TypeVar("DataT", default=Any)
ResultT = TypeVar("ResultT", default=Any)


class QueueContext(Generic[DataT, ResultT]):
    """One queue on one server. Opens nothing until it is used."""

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
    ) -> None:
        self.keys = QueueKeys(name, prefix=prefix, tag=tag)
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
        defaults = default_options or JobOptions()
        self.retention = Retention(
            queue_rule("remove_on_complete", defaults.remove_on_complete, KEEP_COMPLETED),
            queue_rule("remove_on_fail", defaults.remove_on_fail, KEEP_FAILED),
        )
        self.runner = AsyncRunner(self.server)
        #: Whether this client has listed the queue for discovery.
        self.is_registered = False

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.keys.name

    async def register(self) -> None:
        """List the queue for discovery, once per client. Raises ConfigurationError in another loop, or once closed."""
        self.runner.bind()
        if not self.is_registered:
            try:
                await self.runner.run_verb(register_queue(self.keys))
                self.is_registered = True
            except ServerRefused as error:
                # A server that takes no writes needs its workers: they start, and this is tried again later.
                if error.code not in ("OOM", "MISCONF"):
                    raise

    async def stored(self, job_id: str) -> StoredJob | None:
        """Read one job. One round trip. Raises UnreadableRecord."""
        found = (await self.runner.run(get_jobs(self.keys, [check_job_id(job_id)])))[0]
        if isinstance(found, UnreadableRecord):
            raise found
        return found

    async def require(self, job_id: str) -> StoredJob:
        """Read one job. Raises JobNotFound."""
        stored = await self.stored(job_id)
        if stored is None:
            raise self.not_found(job_id)
        return stored

    def not_found(self, job_id: str) -> JobNotFound:
        """Return the error for a job that is not stored."""
        return JobNotFound(
            f"job {job_id!r} is not in queue {self.name!r}: never added, or removed since",
            queue=self.name,
            job_id=job_id,
        )
