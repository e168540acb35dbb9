"""Every name that spans, logs and metrics carry. Those of OpenTelemetry are of its semantic conventions 1.44, in which messaging
is still in development: a new version of them is a change of this module. What they have no word for is `eventq.*`.
"""

from __future__ import annotations

from typing import Final

from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from eventq import __version__

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
SCOPE: Final = InstrumentationScope("eventq", __version__, SCHEMA_URL)
SYSTEM: Final = "eventq"

# Spans: `{operation} {queue}`.
ADD: Final = "add"
ADD_BULK: Final = "add_bulk"
CREATE: Final = "create"
SCHEDULE: Final = "schedule"
QUEUED: Final = "queued"
PROCESS: Final = "process"

# OpenTelemetry's attributes.
MESSAGING_SYSTEM: Final = "messaging.system"
OPERATION_NAME: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
DESTINATION: Final = "messaging.destination.name"
MESSAGE_ID: Final = "messaging.message.id"
CLIENT_ID: Final = "messaging.client.id"
BATCH_COUNT: Final = "messaging.batch.message_count"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
FUNCTION_NAME: Final = "code.function.name"
SERVICE_NAME: Final = "service.name"
PROCESS_PID: Final = "process.pid"
SERVICE_INSTANCE: Final = "service.instance.id"
EXCEPTION: Final = "exception"
EXCEPTION_TYPE: Final = "exception.type"
EXCEPTION_MESSAGE: Final = "exception.message"
EXCEPTION_STACKTRACE: Final = "exception.stacktrace"
PROCESS_EXCEPTION: Final = "messaging.process.exception"

# Ours.
JOB_NAME: Final = "eventq.job.name"
JOB_ATTEMPT: Final = "eventq.job.attempt"
JOB_RUN: Final = "eventq.job.run"
JOB_WAIT: Final = "eventq.job.wait_duration"
JOB_OUTCOME: Final = "eventq.job.outcome"
JOB_WILL_RETRY: Final = "eventq.job.will_retry"
JOB_EXHAUSTED: Final = "eventq.job.exhausted"
JOB_STALLS: Final = "eventq.job.stalls"
JOB_STATE: Final = "eventq.job.state"
JOB_DELAY: Final = "eventq.job.delay"
JOB_PRIORITY: Final = "eventq.job.priority"
JOB_PROGRESS: Final = "eventq.job.progress"
SCHEDULE_ID: Final = "eventq.schedule.id"
SCHEDULE_SLOT: Final = "eventq.schedule.slot"
LINK: Final = "eventq.link"
INCOMPLETE: Final = "eventq.span.incomplete"
DROPPED: Final = "eventq.span.dropped"
SAMPLING_REASON: Final = "eventq.sampling.reason"
PROGRESS: Final = "progress"

#: What user code may not overwrite on its span.
RESERVED: Final = ("messaging.", "eventq.", ERROR_TYPE)
