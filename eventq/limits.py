"""How large things may be, and how long they may take. One place, so that a refusal can name its limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Jobs per settle_and_claim call, each way; also events per stream entry.
BATCH_JOBS: Final = 100
#: Jobs per add_jobs call, ids per administrative call.
CALL_JOBS: Final = 500
#: Jobs per call of an operation that goes through all of them, so that no call keeps the server for long.
SLICE_JOBS: Final = 250
#: Bytes of job text per call, both ways.
CALL_BYTES: Final = 1024 * 1024
#: Data above this is kept apart from the record, so that moving a job does not move its payload.
INLINE_DATA_BYTES: Final = 1024
#: Schedules of one queue.
MAX_SCHEDULES: Final = 10_000
#: The best priority number is 0 (none); 2**21 - 1 keeps priority * 2**32 + counter exact in a double.
MAX_PRIORITY: Final = 2**21 - 1
MAX_ATTEMPTS: Final = 1_000_000
#: The last ms that a datetime can be in every time zone, less a day: what is stored as a later time is damaged.
LAST_MS: Final = 253_402_214_400_000
#: Ten years: longer than any sane delay, short enough that due times stay exact in a sorted set score.
MAX_DELAY_MS: Final = 10 * 365 * 86_400_000
PROGRESS_BYTES: Final = 16 * 1024
#: Progress of one job is written at most every so many seconds; the latest value wins.
PROGRESS_INTERVAL: Final = 0.1
#: What is kept of a job's log: the last so many lines, so many bytes; and how long one line may be.
LOG_LINES: Final = 1_000
LOG_BYTES: Final = 64 * 1024
LOG_LINE_BYTES: Final = 8 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Size limits of one queue, in bytes. Exceeding one is refused on the client, with the limit named."""

    data: int = 256 * 1024
    result: int = 64 * 1024
    error_message: int = 1024
    traceback: int = 8 * 1024
    #: Results up to this size ride along on the completed event; 0 for never.
    event_result: int = 1024


#: Retention of the event stream: events, bytes, age in ms, and the hard cap in bytes that even a slow reader cannot hold.
EVENT_RETENTION: Final = (1_000_000, 64 * 1024 * 1024, 86_400_000, 256 * 1024 * 1024)
#: A durable reader idle for longer than this no longer holds back trimming (ms).
READER_LIVE_MS: Final = 86_400_000
