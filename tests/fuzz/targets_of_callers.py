"""Decoders of what people and programs hand in: names, options, URLs, expressions, words of a command line; and what is shown."""

from __future__ import annotations

import json
import logging
import re
import sys
import unicodedata
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from redis._parsers import _HiredisParser as HiredisParser
from redis.crc import key_slot

from eventq.backoff import Backoff, backoff_ms
from eventq.checks import check_worker_name
from eventq.cli.logs import JsonFormatter, TextFormatter
from eventq.cli.runtime import UsageError
from eventq.cli.selection import CLEANABLE, check_selection, check_state
from eventq.cli.target import load_target
from eventq.cli.text import plain, quoted, shorten
from eventq.client.faults import Remedy, code_of, refusal, remedy_of
from eventq.client.recovery import Recovery
from eventq.client.server import Server, redact
from eventq.codec import encode_json
from eventq.cron import Cron, find_zone
from eventq.durations import to_ms
from eventq.errors import ConfigurationError, EventqError, InvalidJob
from eventq.ids import made_ms
from eventq.keys import COLUMNS, QueueKeys, check_job_id, check_job_name, check_own_id, check_queue_name
from eventq.limits import Limits
from eventq.options import JobOptions, Keep, parse_spec, queue_rule, retention_rule
from eventq.outcome import describe
from eventq.states import JobState, parse_state

from .targets import Target, text_of, wild_text_of

if TYPE_CHECKING:
    from collections.abc import Callable

SECRET: Final = "s3cr3tpassw0rd"
_parser: Final[Any] = HiredisParser
_SERVER: Final = Server("redis://h:1")


def parse_key(key: str) -> tuple[str, str, str, str]:
    """Return prefix, tag, name and column of a key: what was joined can be taken apart in one way only."""
    prefix, _, rest = key.partition(":{")
    tag, _, rest = rest.partition("}:")
    name, _, column = rest.rpartition(":")
    return prefix, tag, name, column


def _keys(data: bytes) -> None:
    name, prefix, tag, *_ = [*wild_text_of(data).split("\0"), "eventq", "", ""]
    keys = QueueKeys(name, prefix=prefix, tag=tag or None)
    slots = set()
    for column in COLUMNS:
        assert parse_key(keys[column]) == (prefix, tag or name, name, column)
        slots.add(key_slot(keys[column].encode()))
    assert len(slots) == 1
    assert key_slot(keys.tag.encode()) in slots


def _name(check: Callable[[object], str], allowed: str) -> Callable[[bytes], None]:
    def decode(data: bytes) -> None:
        text = wild_text_of(data)
        assert check(text) == text
        assert text.isascii() and text.isprintable() and not set(text) - set(allowed)
        assert json.loads(f'"{text}"') == text, "a name goes into JSON as it is"

    return decode


def _server(data: bytes) -> None:
    """A URL whose password is known: nothing that is shown has it."""
    url = wild_text_of(data)
    try:
        server = Server(url)
        connection = server.sync_connection("name", 1.0)
        shown = f"{server!r} {server.where} {server.asked}"
        del connection
    except ConfigurationError as error:
        shown = _said(error)
    if SECRET not in re.split(r"[?#]", url)[0].rpartition("@")[2]:  # else it is, or looks like, a host or a path
        assert SECRET not in shown, shown
        assert SECRET not in redact(url)
    assert plain(redact(url)).isprintable()


def _said(error: BaseException) -> str:
    """Return what anybody who prints the error may see: it, and what it was raised from."""
    words = []
    each: BaseException | None = error
    while each is not None:
        words.append(f"{each!r} {each}")
        each = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
    return " ".join(words)


def _fault(data: bytes) -> None:
    """An error reply, as the driver makes an exception of it."""
    try:
        error: Exception = _parser.parse_error(text_of(data))
    except (ValueError, IndexError):  # the driver's own: MOVED without a slot
        return
    assert isinstance(remedy_of(error), Remedy)
    code_of(error)
    assert isinstance(refusal(error, "PING"), EventqError)
    recovery = Recovery(_SERVER, "PING", is_script=True, patience=5, longest_pause=0.1, tried="redis://h:1")
    assert 0 <= recovery.after(error) < 1


def _cron(data: bytes) -> None:
    text, _, zone = text_of(data).partition("|")
    cron = Cron(text, zone or "UTC")
    last = 1_700_000_000_000
    for _, slot in zip(range(3), cron.after(last), strict=False):
        assert slot > last
        last = slot


def _duration(data: bytes) -> None:
    value = _as_value(data)
    ms = to_ms("delay", value)
    assert 0 <= ms and abs(ms / 1000 - float(value)) <= 0.001
    assert to_ms("delay", timedelta(milliseconds=ms)) == ms


def _as_value(data: bytes) -> Any:
    """Return what JSON says, with NaN and the infinities as Python has them; else the text."""
    try:
        return json.loads(text_of(data))
    except (ValueError, RecursionError):
        return text_of(data)


def _backoff(data: bytes) -> None:
    told = _as_value(data)
    given: Any = told if isinstance(told, list) and len(told) == 5 else (told, 1, 0, 5, 1)
    kind, delay, jitter, maximum, fails = given
    made = {
        "fixed": lambda: Backoff.fixed(delay, jitter=jitter),
        "exponential": lambda: Backoff.exponential(delay, jitter=jitter, maximum=maximum),
    }.get(kind if isinstance(kind, str) else "", lambda: Backoff.custom(kind, delay))()
    for times in {1, 2, 50, fails if isinstance(fails, int) and 0 < fails < 2**40 else 3}:
        for drawn in (0.0, 0.5, 0.999):
            assert 0 <= backoff_ms(made, times, partial(float, drawn)) <= 10 * 365 * 86_400_000
    options = JobOptions(backoff=made)
    assert parse_spec(options.compiled.spec).backoff == made or not options.compiled.spec


def _options(data: bytes) -> None:
    """Keyword arguments of add, as a program takes them out of a request."""
    told = _as_value(data)
    if not isinstance(told, dict):
        raise InvalidJob("not a mapping")
    known = (
        "delay",
        "attempts",
        "backoff",
        "priority",
        "lifo",
        "job_id",
        "remove_on_complete",
        "remove_on_fail",
        "timeout",
        "max_starts",
        "propagation",
    )
    options = JobOptions(**{key: value for key, value in told.items() if key in known})
    compiled = options.compiled
    assert parse_spec(compiled.spec) == compiled.options
    assert compiled.header.count("\t") == 1 and "\n" not in compiled.spec
    compiled.due_ms(1_700_000_000_000)


def _retention(data: bytes) -> None:
    told = _as_value(data)
    value: Any = Keep(count=told[0], age=told[1]) if isinstance(told, list) and len(told) == 2 else told
    rule = retention_rule("remove_on_complete", value)
    assert rule.isascii() and len(rule) < 100
    queue_rule("remove_on_complete", value, Keep(count=1))


def _selection(data: bytes) -> None:
    words = wild_text_of(data).split(" ")
    check_state(words[0], CLEANABLE)
    assert isinstance(parse_state(words[0]), JobState)
    check_selection(words[1:], every=False, limit=None)
    for each in words[1:]:
        check_job_id(each)


def _target(data: bytes) -> None:
    """`module:object` is the one place where a name is looked up; it looks up modules, and runs nothing."""
    text = wild_text_of(data)
    before = set(sys.modules)
    module = text.partition(":")[0]
    if module.partition(".")[0] in ("eventq", "json", "tests") or module in sys.builtin_module_names:
        load_target(text)
    elif not all(part.isidentifier() for part in module.split(".")):
        load_target(text)
        raise AssertionError(f"{text!r} was looked up")
    assert {name.partition(".")[0] for name in set(sys.modules) - before} <= {"eventq", "json", "tests"}


def is_one_plain_line(text: str) -> bool:
    """Whether text is one line that a terminal shows as it is: no control characters, no sequences, nothing that turns it around."""
    return all(char.isprintable() or unicodedata.category(char) == "Zs" for char in text)


def _text(data: bytes) -> None:
    text = wild_text_of(data)
    for shown in (plain(text), quoted(text), plain(shorten(text, 9))):
        assert is_one_plain_line(shown), ascii(shown)
        shown.encode()
    assert plain(plain(text)) == plain(text)


def _log(data: bytes) -> None:
    """What ends up in a record: message, arguments, the logger's name, extras, an exception."""
    text = wild_text_of(data)
    record = logging.LogRecord(text, logging.INFO, "path", 1, "job %s", (text,), None)
    record.__dict__.update({"job_id": text, "extra": {text: [text, float("nan"), {1, 2}]}, text: text})
    line = TextFormatter().format(record)
    assert is_one_plain_line(line), ascii(line)
    document = JsonFormatter().format(record)
    assert document.isascii() and document.isprintable()
    json.loads(document)
    try:
        raise ValueError(text)
    except ValueError as error:
        record = logging.LogRecord("n", logging.INFO, "path", 1, "failed", (), (type(error), error, error.__traceback__))
        info = describe(error, Limits())
    _, *rest = TextFormatter().format(record).split("\n")
    assert all(map(is_one_plain_line, rest)), ascii(rest)
    # What an exception says must not look like a record of its own.
    assert all(each.startswith("  ") for each in rest), ascii(rest)
    assert is_one_plain_line(JsonFormatter().format(record))
    encode_json({"type": info.type, "message": info.message, "traceback": info.traceback}, "error")
    assert len(info.message.encode()) <= 1024 and len(info.traceback.encode()) <= 8 * 1024


_ID: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
_URLS: Final = tuple(
    text.replace("SECRET", SECRET).encode()
    for text in (
        "redis://:SECRET@localhost:6379/0?socket_timeout=5", "rediss://SECRET:SECRET@h/1", "unix://user:SECRET@/tmp/s.sock?db=1",
        "sentinel://u:SECRET@a:1,b/orders/3?sentinel_password=SECRET", "cluster+tls://:SECRET@a,b:7000", "redis://h?password=SECRET",
    )
)  # fmt: skip
TARGETS: Final = (
    Target("keys", _keys, (ConfigurationError,), (b"emails\0eventq\0", b"emails\0my.app\0shared", b"a:b", b"a}{b")),
    Target("queue name", _name(check_queue_name, _ID), (ConfigurationError,), (b"emails", b"a.b-c_d")),
    Target("own id", _name(check_own_id, _ID), (InvalidJob,), (b"order-17",)),
    Target("job id", _name(check_job_id, _ID + ":"), (InvalidJob,), (b"schedule:tick:1700000000000",)),
    Target("job name", _name(check_job_name, _ID + ":/ "), (InvalidJob,), (b"send mail", b"a/b:c", b"os.system")),
    Target("worker name", _name(check_worker_name, _ID + ":@"), (ConfigurationError,), (b"host:1:abcd",)),
    Target("id of ours", lambda data: made_ms(wild_text_of(data)), (), (b"0lk2m3n4o5p6q7r8s9t0",)),
    Target("url", _server, (ConfigurationError,), _URLS),
    Target("error reply", _fault, (EventqError,), (
        b"ERR unknown command", b"MOVED 866 127.0.0.1:7001", b"ASK 866 h:1", b"NOSCRIPT No matching script", b"LOADING x", b"OOM x",
        b"WRONGTYPE Operation against a key", b"NOAUTH x", b"WRONGPASS x", b"READONLY x", b"BUSY x", b"CLUSTERDOWN x",
    )),
    Target("cron", _cron, (ConfigurationError,), (
        b"0 9 * * MON-FRI", b"*/5 * * * *", b"30 2 31 1,3 *|Europe/Berlin", b"0 0 29 2 *", b"0 0 L * 5#2|America/New_York", b"@daily", b"1 2 3 4 5 6",
    ), most_seconds=0.1),
    Target("time zone", lambda data: find_zone(wild_text_of(data)), (ConfigurationError,), (b"Europe/Berlin", b"UTC", b"../../etc/passwd")),
    Target("duration", _duration, (InvalidJob,), (b"5", b"0.25", b"1e3")),
    Target("backoff", _backoff, (InvalidJob,), (b'["fixed",5,0.5,10,3]', b'["exponential",1.5,0,100,40]', b'["mine",5,0,0,1]')),
    Target("options", _options, (InvalidJob,), (
        b'{"delay":5,"attempts":3,"backoff":1.5,"priority":7,"lifo":true,"job_id":"a","remove_on_complete":5,"remove_on_fail":false,'
        b'"timeout":30,"max_starts":5,"propagation":"link"}',
    )),
    Target("retention", _retention, (InvalidJob,), (b"5", b"true", b"[5,10]", b"[null,1.5]")),
    Target("selection", _selection, (UsageError, ConfigurationError, InvalidJob), (b"failed a b c", b"waiting x")),
    Target("module:object", _target, (UsageError,), (b"json:loads", b"eventq.keys:COLUMNS", b"os:system", b"json.decoder:JSONDecoder.decode")),
    Target("shown text", _text, (), (b"plain", "größer \u4e2d".encode(), b"\x1b[31mred\x1b[0m")),
    Target("log line", _log, (), (b"all is well", b"a\n2025-01-31T12:00:00.000Z INFO eventq.worker forged")),
)  # fmt: skip
