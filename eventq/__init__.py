"""eventq: a typed job queue for Python on Redis or Valkey, where every state change is also an event on a Redis stream."""

from importlib.metadata import PackageNotFoundError, version

from eventq.backoff import Backoff
from eventq.commands.watch import QueueState, ScheduleState, WorkerState
from eventq.current import current_job
from eventq.durability import Durability
from eventq.errors import (
    BadSignature,
    BulkAddError,
    ConfigurationError,
    EventqError,
    InvalidJob,
    InvalidState,
    JobError,
    JobFailed,
    JobNotFound,
    LayoutMismatch,
    LeaseLost,
    Postpone,
    QueueActive,
    QueueUnavailable,
    Retry,
    ScheduleNotFound,
    ScriptError,
    ServerRefused,
    Unconfirmed,
    Unrecoverable,
)
from eventq.followed import EventBatch, FollowerSink
from eventq.follower import Follower
from eventq.job import Job
from eventq.job_logs import JobLogFilter
from eventq.job_queue import JobQueue, JobStatus
from eventq.limits import Limits
from eventq.options import JobOptions, Keep
from eventq.queue import NewJob, Queue
from eventq.queue_events import EventStream
from eventq.schedule import Schedule
from eventq.scheduler import QueueScheduler
from eventq.signing import SigningKeys
from eventq.states import JobState
from eventq.sync_job import SyncJob
from eventq.sync_queue import SyncQueue
from eventq.worker import Worker

try:
    __version__ = version("eventq")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Backoff",
    "BadSignature",
    "BulkAddError",
    "ConfigurationError",
    "Durability",
    "EventBatch",
    "EventStream",
    "EventqError",
    "Follower",
    "FollowerSink",
    "InvalidJob",
    "InvalidState",
    "Job",
    "JobError",
    "JobFailed",
    "JobLogFilter",
    "JobNotFound",
    "JobOptions",
    "JobQueue",
    "JobState",
    "JobStatus",
    "Keep",
    "LayoutMismatch",
    "LeaseLost",
    "Limits",
    "NewJob",
    "Postpone",
    "Queue",
    "QueueActive",
    "QueueScheduler",
    "QueueState",
    "QueueUnavailable",
    "Retry",
    "Schedule",
    "ScheduleNotFound",
    "ScheduleState",
    "ScriptError",
    "ServerRefused",
    "SigningKeys",
    "SyncJob",
    "SyncQueue",
    "Unconfirmed",
    "Unrecoverable",
    "Worker",
    "WorkerState",
    "__version__",
    "current_job",
]
