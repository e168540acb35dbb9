"""Decoders of what is stored in Redis: whoever may write there may write anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import msgspec

from eventq.cli.facts import event_document, event_facts_for_people, job_facts
from eventq.cli.job import _decoded, _options
from eventq.cli.tables import iso, local_time
from eventq.codec import Codec
from eventq.commands import add, events, inspect, manage, read, schedules, upkeep, watch, work
from eventq.commands.core import Command, Verb
from eventq.errors import EventqError, InvalidJob, ScriptError
from eventq.events import STREAM_EVENTS, UnreadableEntry, parse_entry
from eventq.job import stored_error, stored_progress
from eventq.keys import QueueKeys
from eventq.operations.following import span_of
from eventq.options import parse_spec
from eventq.records import UnreadableRecord, parse_record, parse_run, parse_stored
from eventq.schedule import Standing, parse_schedule, schedule_of
from eventq.slots import due_slots, next_slots, plan_firings
from eventq.spans import RunKey, creation_of, facts_of, is_child, parse_traceparent, queued_of, run_of
from eventq.states import JobState

from .targets import Target, text_of

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS: Final = QueueKeys("q")
NOW: Final = 1_700_000_000_000
_ANY: Final[Codec[Any]] = Codec(Any, what="data", limit=2**20, option="")
TRACE: Final = b'"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","tracestate":"a=1","batch":"x.3"'
SPEC: Final = (
    b'{"attempts":3,"backoff":{"kind":"exponential","delay_ms":1000,"jitter":0.5},"remove_on_complete":"count:5 age:1000",'
    b'"remove_on_fail":"forever","timeout_ms":5000,"max_starts":9,"baggage":"a=b"}'
)
RECORD: Final = b"1\t1700000000000\t1700000005000\t7\tl\twelcome\t" + TRACE + b"\n" + SPEC + b'\n{"to":"a@b.c"}'
RUN: Final = b"active abcdefghijkl.12.0 0 1700000000000 1700000000500 2 1 0 0 30064771073 host:1:abcd"
SCHEDULE: Final = (
    b"rev1\t1700000000000\t1699999999000\t5\t1\tp\n"
    b'{"name":"tick","anchor_ms":1600000000000,"every_ms":60000,"timezone":"Europe/Berlin","header":"5\\tl","missed":3,'
    b'"limit":100,"end_ms":1900000000000,"spec":"{\\"remove_on_fail\\":\\"count:5\\"}","data":{"a":1}}'
)
CRON_SCHEDULE: Final = (
    b'rev1\t1700000000000\t-\t5\t1\t\n{"name":"tick","anchor_ms":1600000000000,"cron":"0 9 * * MON-FRI","missed":"once"}'
)


def _event(data: bytes) -> None:
    kind, _, rest = data.partition(b" ")
    seq, _, rest = rest.partition(b" ")
    n, _, rest = rest.partition(b" ")
    ms, _, told = rest.partition(b" ")
    fields = {"kind": text_of(kind), "seq": text_of(seq), "n": text_of(n), "ms": text_of(ms), "events": text_of(told)}
    span_of(events.Entry("1-1", fields))
    for event in parse_entry("q", fields):
        for name in dir(type(event)):
            if not name.startswith("_"):
                getattr(event, name)
        json.dumps(event_document(event), default=str)
        event_facts_for_people(event)
        repr(event)


def _record(data: bytes) -> None:
    record = parse_record(text_of(data), "")
    text = f"1\t{record.added_ms}\t{record.due_ms or ''}\t{record.priority or ''}\t{record.flags}\t{record.name}\t{record.trace}"
    again = parse_record(f"{text}\n{record.spec_text}\n{record.data}", "")
    assert again == record or "d" in record.flags


def _run(data: bytes) -> None:
    run = parse_run(text_of(data))
    words = (run.state, run.token, run.finished_ms, run.ready_ms, run.started_ms, run.starts, run.fails, run.stalls, run.releases)
    assert parse_run(" ".join(map(str, (*words, run.place, run.worker)))) == run


def _stored(data: bytes) -> None:
    """Every column of one job, between NULs."""
    parts: list[str | None] = [text_of(part) or None for part in data.split(b"\0")[:5]]
    stored = parse_stored(False, ["schedule:x:5", *(parts + [None] * 5)[:5]])
    if stored is not None:
        json.dumps(job_facts("q", stored))
        json.dumps(_options(stored))
        for ms in (stored.record.added_ms, stored.run.started_ms, stored.run.finished_ms, stored.run.ready_ms):
            iso(ms)
            local_time(ms)
        _decoded(stored.result)
        _decoded(stored.record.data)
        stored_progress(stored.progress)
        stored_error(stored.result)


def _schedule(data: bytes) -> None:
    stored = parse_schedule("s", text_of(data))
    header = f"{stored.standing.revision}\t{stored.standing.text}\n{stored.text}"
    assert parse_schedule("s", header) == stored
    definition, standing = stored.definition, stored.standing
    schedule_of(stored, _ANY)
    next_slots(definition, standing.next_ms, standing.fired, 3)
    start = max(standing.next_ms or NOW, NOW - 3_600_000)
    plan_firings(definition, start, NOW, standing.fired)
    due_slots(definition, start, NOW)


def _spec(data: bytes) -> None:
    text = text_of(data)
    spec = parse_spec(text)
    assert parse_spec(msgspec.json.encode(spec).decode()) == spec


def _trace(data: bytes) -> None:
    facts = facts_of(text_of(data))
    creation = creation_of("q", "j", NOW, facts)
    key = RunKey("q", "j", 5, NOW)
    for ids in (creation, run_of(creation, facts, key, 5), queued_of(creation, key)):
        assert 0 < ids.trace_id < 2**128 and 0 < ids.span_id < 2**64
    is_child(facts, 5)


def _traceparent(data: bytes) -> None:
    text = text_of(data)
    ids = parse_traceparent(text)
    if ids is not None:
        assert text.lower()[3:52] == f"{ids.trace_id:032x}-{ids.span_id:016x}"


def _position(data: bytes) -> None:
    position = events.Position.parse(text_of(data))
    assert events.Position.parse(position.text) == position


def _reply(command: Command[Any]) -> Callable[[bytes], object]:
    return lambda data: command.read(_as_reply(data))


def _verb(verb: Verb[Any]) -> Callable[[bytes], object]:
    return lambda data: verb.read(_as_reply(data))


def _as_reply(data: bytes) -> Any:
    """Return a reply: what JSON can say is what a server can, numbers, texts, nothing and lists of them; else the text itself."""
    try:
        return _as_redis(json.loads(text_of(data)))
    except (ValueError, RecursionError):
        return text_of(data)


def _as_redis(value: Any) -> Any:
    if isinstance(value, list):
        return [_as_redis(each) for each in value]
    return value if value is None or (type(value) is int and abs(value) < 2**63) else str(value)


def _script(name: str, command: Command[Any], *replies: str) -> Target:
    words = ('["LAYOUT", "2"]', '["STALE", "7"]', '["OK"]', "[]", "null", '"OK"')
    return Target(f"reply of {name}", _reply(command), (EventqError,), tuple(text.encode() for text in (*replies, *words)))


def _plain(name: str, verb: Verb[Any], *replies: str) -> Target:
    return Target(
        f"reply to {name}", _verb(verb), (EventqError,), tuple(text.encode() for text in (*replies, "null", '"OK"', "[]", "5"))
    )


_JSON_RECORD: Final = json.dumps([RECORD.decode(), RUN.decode()])[1:-1]
_RETENTION: Final = work.Retention((1, 2), (3, 4))
_STATE: Final = (
    '["OK",1700000000000,"abc-1",55,0,3,1699999999000,-1,[1,2,3,4,5,6,7],[1699999999000,-1,5],'
    '["w","abc 1700000015000 1700000000000 5 10 3 1700000000000 1700000000001 {\\"host\\":\\"a\\"}"],'
    '["s",1700000000000,-1],["added welcome","5"],123]'
)
_REPLIES: Final = (
    _script("add_jobs", add.add_jobs(KEYS, []), '["OK","0 2",1700000000000]'),
    _script(
        "settle_and_claim",
        work.settle_and_claim(
            KEYS, worker="w", lease_ms=5, wanted=1, retention=_RETENTION, progress=[], outcomes=[]
        ),
        f'["OK",1700000000000,7,-1,"0 1","abc.5.","id",{json.dumps(RECORD.decode())},{json.dumps(RUN.decode() + chr(10))}]',
    ),
    _script("release_jobs", work.release_jobs(KEYS, []), '["OK","3"]', '["OK",3]'),
    _script("renew_leases", work.renew_leases(KEYS, 5, []), '["OK","0 1 2"]'),
    _script("hold_consumer", events.hold_consumer(KEYS, "c", "h", 5), '["OK","held","abc-1 1700000000000-0 55","{}","abc-1",60]'),
    _script("report_events", events.report_events(KEYS, "error", []), '["OK",5]'),
    _script("get_jobs", read.get_jobs(KEYS, []), f'["OK",1700000000000,0,"id",{_JSON_RECORD},null,"{{}}","5"]'),
    _script("list_jobs", read.list_jobs(KEYS, JobState.WAITING, 0, 5, newest_first=False), '["OK",["a","b"],""]'),
    _script("list_finished", read.list_finished(KEYS, JobState.FAILED, "", 0, 5), '["OK","1700000000000",["a","b"]]'),
    _script("count_jobs", read.count_jobs(KEYS), '["OK",0,1,2,3,4,5,6,7]', '["OK",1,1,2,3,4,5,6,7]'),
    _script("count_priorities", read.count_priorities(KEYS, [0, 1]), '["OK",5,6]'),
    _script("pause_queue", manage.pause_queue(KEYS), '["OK",1]'),
    _script("retry_jobs", manage.retry_jobs(KEYS, [], state=JobState.FAILED, reset_attempts=False), '["OK","rsm"]'),
    _script("clean_jobs", manage.clean_jobs(KEYS, JobState.FAILED, cutoff="0", cursor="", most=5, reason="cleaned"), '["OK","1","","a b"]'),
    _script("obliterate_queue", manage.obliterate_queue(KEYS, "e", force=False), '["OK","gone",5]'),
    _script("sweep_queue", upkeep.sweep_queue(KEYS, 5, 1, 2, _RETENTION), '["OK",1,2,0,-1,5,-1,1000,1,-1]'),
    _script("run_timers", upkeep.run_timers(KEYS, _RETENTION), '["OK",1,0]'),
    _script("trim_events", upkeep.trim_events(KEYS), '["OK",1,0]'),
    _script("report_worker", watch.report_worker(KEYS, "w", 5, watch.Vital("i", 1, 2, 3, 4, 5, 6, "{}")), '["OK",5]'),
    _script("observe_queue", watch.observe_queue(KEYS), _STATE),
    _script("get_schedules", schedules.get_schedule(KEYS, "s"), f'["OK",1700000000000,0,"s",{json.dumps(SCHEDULE.decode())}]'),
    _script("set_schedule", schedules.set_schedule(KEYS, "s", None, Standing(), "{}"), '["OK","set"]'),
    _script("remove_schedule", schedules.remove_schedule(KEYS, "s"), '["OK",1]'),
    _plain("XREAD", events.read_events(KEYS, "0-0", 5, 5), '[["key",[["1-1",["kind","added","seq","1"]]]]]'),
    _plain("XREAD of several", events.read_streams([(KEYS, "0-0")], 5, 5), '[["key",[["1-1",["kind","added","seq","1"]]]]]'),
    _plain("XREVRANGE", events.last_entry(KEYS), '[["1-1",["kind","added","seq","1"]]]'),
    _plain("TIME", events.server_time(), '["1700000000","123456"]'),
    _plain("HMGET", events.stream_state(KEYS), '["abc-1","55"]'),
    _plain("HGETALL", inspect.list_queues("eventq"), '["q","tag"]'),
    _plain("INFO", inspect.server_info(), '"# Server\\r\\nredis_version:7.0.0\\r\\n"'),
    _plain("SLOWLOG", inspect.slow_log(5), '[[1,1700000000,500,["GET","a"],"127.0.0.1:5","name"]]'),
    _plain("ZRANGE", inspect.first_of_set(KEYS, "leases"), '["a","1700000000000"]'),
    _plain("ZMSCORE", inspect.set_scores(KEYS, "delayed", ["a"]), '["1700000000000.5",null]'),
    _plain("XLEN", inspect.stream_length(KEYS), "5"),
    _plain("HGET of a log", read.job_logs(KEYS, "a"), '"2\\n\\"line\\"\\n\\"other\\""'),
    _plain("BZPOPMIN", read.wait_for_work(KEYS, 1), '["key","0","0"]'),
)  # fmt: skip
_FACTS: Final = b'[{"job_id":"a","name":"welcome","attempt":1,"worker":"w","waited_ms":5,"ran_ms":6,"total_ms":7,'
_EVENTS: Final = tuple(
    kind.encode() + b" 5 1 1700000000000 " + _FACTS + b'"due_ms":1700000000000,"state":"waiting","previous":"active",'
    b'"priority":3,"schedule":"s","slot_ms":1700000000000,"result":{"a":[1]},"error":{"type":"E","message":"m"},"reason":"error",'
    b'"exhausted":true,"span":{"attributes":{"a":1}},"progress":5,"job_ids":["a"],"count":5,"totals":{"added welcome":5},"type":"E",'
    b'"first_ms":1700000000000,"last_ms":1700000000000,"resource":{"a":"b"},"processors":{"welcome":"f"},' + TRACE + b"}]"
    for kind in (*STREAM_EVENTS, "of_the_future")
)

TARGETS: Final = (
    Target("events of an entry", _event, (UnreadableEntry,), _EVENTS),
    Target("record of a job", _record, (UnreadableRecord,), (RECORD, b"1\t1\t\t\t\tn\t\n\nnull")),
    Target("run of a job", _run, (UnreadableRecord,), (RUN, b"waiting - 0 1 0 0 0 0 0 - -")),
    Target(
        "columns of a job", _stored, (UnreadableRecord,), (b"\0".join((RECORD, RUN, b"5", b'{"type":"E","message":"m"}', b"55")),)
    ),
    Target("spec of a job", _spec, (ValueError,), (SPEC, b"")),
    Target("schedule", _schedule, (EventqError,), (SCHEDULE, CRON_SCHEDULE)),
    Target("trace fragment", _trace, (), (TRACE, b'"batch":"x.500"', b'"propagation":"link","link":"x"')),
    Target("traceparent", _traceparent, (), (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",)),
    Target("place of a reader", _position, (ValueError,), (b"abc-1 1700000000000-0 55", b"- 0-0 0")),
    Target("data", lambda data: _ANY.decode(text_of(data)), (InvalidJob,), (b'{"a":[1,2.5,"x",null]}',)),
    *_REPLIES,
)
__all__ = ["KEYS", "TARGETS", "ScriptError"]
