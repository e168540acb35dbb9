"""Which span a job's creation is, and which each of its runs. Worker and tracer come to the same ids without a word. Pure.

A job added inside a trace belongs to it. One added outside of any gets a trace of its own, whose id is a digest of queue, job id
and time of adding. Span ids are digests too (the first 8 bytes of a SHA-256), so that a tracer which reads an event twice makes
the same span twice; a run's holds its fence and its start, since a stalled run and its successor share an attempt, and a failover
may give one fence to two runs.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

import msgspec

from eventq.ids import made_ms

#: What is said about the relation between a job's creation and its runs.
PROPAGATIONS: Final = ("auto", "parent", "link", "none")
#: Up to this age of the job (ms) its runs join the trace it was created in, if nothing else is said: with a longer one a trace
#: would stay open for hours, and no tool shows that well.
MAX_PARENT_AGE_MS: Final = 15 * 60_000
#: Up to so many jobs of one bulk add have a span each, and their runs join its trace.
MAX_FAN_OUT: Final = 50
#: How long an add takes at most: a longer time is a clock that is wrong.
_LONGEST_ADD_MS: Final = 10_000
_HEX: Final = "[0-9a-fA-F]"
_TRACEPARENT: Final = re.compile(rf"(?![fF]{{2}}){_HEX}{{2}}-({_HEX}{{32}})-({_HEX}{{16}})-({_HEX}{{2}})(?:-|\Z)")


def scope_of(prefix: str, name: str) -> str:
    """Return what tells a queue from others of the same name: its prefix, where that is not the usual one."""
    return name if prefix == "eventq" else f"{prefix}/{name}"


class TraceFacts(msgspec.Struct, frozen=True, gc=False):
    """What a job carries about its trace: members of its events, as stored with it.

    traceparent, tracestate: of the caller (W3C). service: its `service.name`. propagation: what was said, '' for auto.
    batch: of a bulk add, `id.jobs`. link: traceparent of whoever set the schedule that made the job.
    """

    traceparent: str = ""
    tracestate: str = ""
    service: str = ""
    propagation: str = ""
    batch: str = ""
    link: str = ""

    @property
    def fan_out(self) -> int:
        """How many jobs were added in one call."""
        jobs = self.batch.rpartition(".")[2]
        return int(jobs) if jobs.isdecimal() and len(jobs) <= 9 else 1


NO_FACTS: Final = TraceFacts()
_MEMBERS: Final = frozenset(TraceFacts.__struct_fields__)
_decode = msgspec.json.Decoder(TraceFacts).decode
_decode_members = msgspec.json.Decoder(dict[str, str]).decode
_encode = msgspec.json.Encoder().encode


def facts_of(fragment: str) -> TraceFacts:
    """Return what a stored fragment says; nothing where it is damaged: a job runs all the same."""
    if not fragment:
        return NO_FACTS
    try:
        return _decode(f"{{{fragment}}}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return NO_FACTS


def members_of(fragment: str) -> str:
    """Return a stored fragment as an event of the job may carry it: an event stands beside others in one JSON text, and a member
    of another name could be taken for another fact. '' where it is damaged.
    """
    if not fragment:
        return ""
    try:
        said = _decode_members(f"{{{fragment}}}")
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return ""
    if said.keys() <= _MEMBERS:
        return fragment
    return _encode({name: text for name, text in said.items() if name in _MEMBERS}).decode()[1:-1]


class SpanIds(msgspec.Struct, frozen=True, gc=False):
    """One span's place. parent_id: 0 for a root. is_sampled: None where nobody has decided yet. state: the tracestate."""

    trace_id: int
    span_id: int
    parent_id: int = 0
    is_sampled: bool | None = None
    state: str = ""


def creation_of(scope: str, job_id: str, added_ms: int, facts: TraceFacts) -> SpanIds:
    """Return the span that created a job: `add`, `create` of a small bulk, `add_bulk` of a large one, `schedule`.

    scope: the queue, as its keys name it: other queues may have jobs of the same id, in the same trace and millisecond.
    """
    caller = None if job_id.startswith("schedule:") else parse_traceparent(facts.traceparent)
    if caller is None:
        trace_id = _number(16, "trace", scope, job_id, added_ms)
        return SpanIds(trace_id, _number(8, trace_id, scope, job_id, added_ms, "add"))
    if facts.batch:
        bulk = bulk_of(caller, facts)
        if facts.fan_out > MAX_FAN_OUT:
            return bulk
        caller = msgspec.structs.replace(caller, span_id=bulk.span_id)
    span_id = _number(8, caller.trace_id, scope, job_id, added_ms, "add")
    return SpanIds(caller.trace_id, span_id, caller.span_id, caller.is_sampled, facts.tracestate)


def bulk_of(caller: SpanIds, facts: TraceFacts) -> SpanIds:
    """Return the span of the call that added many jobs at once."""
    span_id = _number(8, caller.trace_id, facts.batch, "add_bulk")
    return SpanIds(caller.trace_id, span_id, caller.span_id, caller.is_sampled, facts.tracestate)


def is_child(facts: TraceFacts, age_ms: int) -> bool:
    """Whether a run that starts at this age of its job is a child of the job's creation, and not a root of its own."""
    if facts.propagation in ("", "auto"):
        return age_ms <= MAX_PARENT_AGE_MS and facts.fan_out <= MAX_FAN_OUT
    return facts.propagation == "parent"


class RunKey(msgspec.Struct, frozen=True, gc=False):
    """What tells one run from every other."""

    scope: str
    job_id: str
    fence: int
    started_ms: int


def run_of(creation: SpanIds, facts: TraceFacts, run: RunKey, age_ms: int) -> SpanIds:
    """Return the `process` span of one run. A root of its own shares the decision whether it is sampled, and no tracestate."""
    if is_child(facts, age_ms):
        trace_id, parent_id, state = creation.trace_id, creation.span_id, creation.state
    else:
        trace_id, parent_id, state = _number(16, creation.trace_id, *_parts(run), "root"), 0, ""
    span_id = _number(8, trace_id, *_parts(run), "process")
    return SpanIds(trace_id, span_id, parent_id, creation.is_sampled, state)


def queued_of(creation: SpanIds, run: RunKey) -> SpanIds:
    """Return the `queued` span before a run."""
    span_id = _number(8, creation.trace_id, *_parts(run), "queued")
    return msgspec.structs.replace(creation, span_id=span_id, parent_id=creation.span_id)


def call_began_ms(job_id: str, added_ms: int) -> int:
    """Return when `add` was called, by the producer's clock, as an id that was made for it tells; else when it was stored."""
    made = made_ms(job_id)
    return made if made is not None and added_ms - _LONGEST_ADD_MS <= made <= added_ms else added_ms


def parse_traceparent(text: str) -> SpanIds | None:
    """Return the caller's span, None for what is none (W3C trace context, level 1 and what is compatible)."""
    found = _TRACEPARENT.match(text)
    if found is None:
        return None
    trace_id, span_id, flags = int(found[1], 16), int(found[2], 16), int(found[3], 16)
    return SpanIds(trace_id, span_id, 0, bool(flags & 1)) if trace_id and span_id else None


def _parts(run: RunKey) -> tuple[str, str, int, int]:
    return run.scope, run.job_id, run.fence, run.started_ms


def _number(size: int, *parts: object) -> int:
    # Zero is no id; that a digest is zero will not be seen.
    text = "/".join(map(str, parts))
    return int.from_bytes(sha256(text.encode()).digest()[:size]) or 1
