"""One queue on one server, spoken to from threads."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from eventq.client import SyncRunner
from eventq.context import BaseContext, DataT, ResultT
from eventq.errors import ServerRefused
from eventq.operations import managing, reading

if TYPE_CHECKING:
    from eventq.records import StoredJob


class SyncContext(BaseContext[DataT, ResultT]):
    """As QueueContext, without a loop. Opens nothing until it is used."""

    def __init__(self, name: str, data_type: Any, result_type: Any, **settings: Any) -> None:
        super().__init__(name, data_type, result_type, **settings)
        self.runner = SyncRunner(self.server)
        #: Whether this client has listed the queue for discovery.
        self.is_registered = False

    def register(self) -> None:
        """List the queue for discovery, once per client (threads that begin together may each do it). Raises once closed."""
        if not self.is_registered:
            try:
                self.runner.perform(managing.enlist(self.keys))
                self.is_registered = True
            except ServerRefused as error:
                # As in QueueContext: what such a server still takes is worth trying.
                if error.code not in ("OOM", "MISCONF"):
                    raise

    def stored(self, job_id: str) -> StoredJob | None:
        """Read one job. One round trip. Raises UnreadableRecord."""
        return self.runner.perform(reading.stored(self.keys, job_id))

    def require(self, job_id: str, *, until: float = inf) -> StoredJob:
        """Read one job. Raises JobNotFound. until: as of SyncRunner."""
        return self.runner.perform(reading.require(self.keys, job_id), until=until)
