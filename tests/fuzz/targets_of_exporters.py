"""Decoders of the exporters: facts of events, what they saved, their environment and files, what a scraper sends."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import msgspec
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from eventq import ConfigurationError, EventBatch
from eventq.commands.watch import observe_queue
from eventq.errors import EventqError
from eventq.events import STREAM_EVENTS
from eventq.keys import QueueKeys
from eventq_opentelemetry.building import Style
from eventq_opentelemetry.environment import exception_events, log_exporter, meter_provider, span_exporter
from eventq_opentelemetry.saved import Memory, memory_of, memory_text
from eventq_opentelemetry.tracer import _server_of
from eventq_opentelemetry.trail import Out, Trail, Wants
from eventq_prometheus.pages import _encoder, _seconds
from eventq_prometheus.saved import Saved, parse_saved
from eventq_prometheus.serving import parse_listen
from eventq_prometheus.spread import labels_of
from eventq_prometheus.tally import Tally
from eventq_prometheus.views import QueueView, Sheet
from eventq_prometheus.web_config import BasicAuth, read_web_config

from .targets import Target, text_of, wild_text_of
from .targets_of_redis import _EVENTS, _STATE, NOW, _as_reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric


# prometheus-client types them not.
_open_metrics: Final[Any] = open_metrics
_parse_metrics: Final[Any] = text_string_to_metric_families


class _Families:
    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def collect(self) -> Iterator[Metric]:
        return self._sheet.families()


def _batch(data: bytes) -> EventBatch:
    kind, _, rest = text_of(data).partition(" ")
    facts = rest.partition(" ")[2].partition(" ")[2].partition(" ")[2]
    return EventBatch("q", kind, 5, 1, NOW, facts, 0)


def _tally(data: bytes) -> None:
    """Events to counters, saved and read back, to what a scrape shows."""
    tally = Tally("q", "", by_name=True, overflowed=lambda _: None)
    for _ in range(2):
        tally.received(_batch(data))
    _check_tally(tally)


def _check_tally(tally: Tally, state: Any = None) -> None:
    saved = tally.freeze()
    again = parse_saved(saved.text)
    assert again.text == saved.text
    sheet = Sheet(zeroes=False, per_worker=True, by_name=True)
    sheet.queue("q", QueueView(saved, tally.examples(), state, 5))
    text = _open_metrics(_Families(sheet)).decode()
    assert generate_latest(_Families(sheet))
    # Whatever a name holds, it does not end its label, its line or the exposition.
    assert list(_parse_metrics(text))


def _saved_tally(data: bytes) -> None:
    text = text_of(data)
    parse_saved(text)
    tally = Tally("q", text, by_name=True, overflowed=lambda _: None)
    tally.received(EventBatch("q", "completed", 1, 1, NOW, '[{"name":"welcome","ran_ms":5,"waited_ms":5}]', 0))
    _check_tally(tally)


def _observed(data: bytes) -> None:
    """What observe_queue answers, shown."""
    state = observe_queue(QueueKeys("q")).read(_as_reply(data))
    tally = Tally("q", "", by_name=True, overflowed=lambda _: None)
    tally.compare(state)
    tally.busy(state.busy_ms)
    _check_tally(tally, state)
    trail = Trail("q", Memory(), Wants(sampler=ALWAYS_ON, style=Style()))
    trail.introduce(state.workers)
    memory_text(trail.memory)


def _trail(data: bytes) -> None:
    """Events to spans."""
    trail, out = Trail("q", Memory(), Wants(sampler=ALWAYS_ON, style=Style(), logs=True, metrics=True)), Out()
    batch = _batch(data)
    for each in (batch, msgspec.structs.replace(batch, kind="active"), batch):
        trail.received(each, out)
    _check_trail(trail, out)


def _check_trail(trail: Trail, out: Out) -> None:
    for span in out.spans:
        span.to_json()
    text = memory_text(trail.memory)
    assert memory_of(text) == trail.memory


def _saved_trail(data: bytes) -> None:
    memory = memory_of(text_of(data))
    trail, out = Trail("q", memory or Memory(), Wants(sampler=ALWAYS_ON, style=Style())), Out()
    facts = '[{"job_id":"a","name":"n","attempt":2,"worker":"w","ran_ms":5,"error":{"type":"E"}}]'
    for kind in ("retrying", "active", "failed"):
        trail.received(EventBatch("q", kind, 1, 1, NOW, facts, 0), out)
    _check_trail(trail, out)


def _environment(data: bytes) -> None:
    """OTEL_* variables, one a line."""
    told: dict[str, str] = {}
    for line in wild_text_of(data).replace("\0", "").split("\n"):
        name, _, value = line.partition("=")
        told[name] = value
    told = {name: value for name, value in told.items() if name.isidentifier() and name.isascii() and name.startswith("OTEL_")}
    with mock.patch.dict(os.environ, told, clear=True):
        exception_events()
        for make in (span_exporter, log_exporter, meter_provider):
            made: Any = make()
            if made is not None:
                made.shutdown()


_FOLDER: Final = Path(tempfile.mkdtemp(prefix="eventq-fuzz-"))


def _web_config(data: bytes) -> None:
    path = _FOLDER / "web.yaml"
    path.write_bytes(data)
    config = read_web_config(path)
    for name, value in config.headers.items():
        assert "\n" not in f"{name}{value}" and value.encode("latin-1")


_AUTH: Final = BasicAuth({"u": b"$2b$04$abcdefghijklmnopqrstuuE0cT1pB3ZP0FmL4F0sYk9cVJtq0uGSa"})


def _authorization(data: bytes) -> None:
    assert asyncio.run(_AUTH.allows(data.decode("latin-1"))) is False


def _headers(data: bytes) -> None:
    text = data.decode("latin-1")
    encode, kind = _encoder(text)
    assert callable(encode) and kind.encode("latin-1")
    _seconds(text)


_SAVED: Final = Saved(
    is_based=True, totals={"added": {"welcome": 5}}, offsets={"added": {"welcome": 1}}, more={"duplicated": {"welcome": 1}},
    errors={"welcome": {"ValueError": 3}}, plain={"trimmed": 5}, events={"added": 5}, missed={"tick": 1}, busy_ms=5, born={"q"},
).text.encode()  # fmt: skip
_MEMORY: Final = (
    b'{"version":1,"runs":{"a":[5,1700000000000,1,"w","n",1700000000000,5,[[1700000000001,5.0]],false]},"previous":{"a":'
    b'["0af7651916cd43dd8448eb211c80319c","b7ad6b7169203331"]},"workers":{"w":[{"service.name":"s","process.pid":"5"},{"n":"f"}]},'
    b'"bulks":{"x.3":null}}'
)
_WEB: Final = (
    b"http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Cache-Control: no-store\n"
    b"basic_auth_users:\n  u: $2b$04$abcdefghijklmnopqrstuuE0cT1pB3ZP0FmL4F0sYk9cVJtq0uGSa\n",
    b"tls_server_config:\n  cert_file: a\n  key_file: b\n  min_version: TLS12\n  client_auth_type: NoClientCert\n",
)
TARGETS: Final = (
    Target("events to counters", _tally, (), _EVENTS),
    Target("events to spans", _trail, (), _EVENTS),
    Target("saved counters", _saved_tally, (ValueError,), (_SAVED,)),
    Target("saved runs", _saved_trail, (), (_MEMORY,)),
    Target("observed queue", _observed, (EventqError, TypeError, ValueError), (_STATE.encode(),)),
    Target("OTEL environment", _environment, (ConfigurationError,), (
        b"OTEL_TRACES_EXPORTER=otlp\nOTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1\nOTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf\n"
        b"OTEL_EXPORTER_OTLP_HEADERS=a=b,c=d\nOTEL_EXPORTER_OTLP_TIMEOUT=5\nOTEL_LOGS_EXPORTER=none\n"
        b"OTEL_EXPORTER_OTLP_COMPRESSION=gzip\nOTEL_SEMCONV_EXCEPTION_SIGNAL_OPT_IN=logs",
    )),
    Target("web configuration", _web_config, (ConfigurationError,), _WEB, most_seconds=3),
    Target("authorization", _authorization, (), (b"Basic dXNlcjpwYXNz", b"Basic dTpw", b"Bearer x")),
    Target("headers of a scrape", _headers, (), (b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5", b"5.0")),
    Target("listen address", lambda data: parse_listen(wild_text_of(data)), (ConfigurationError,), (b"127.0.0.1:10650", b"[::1]:5", b":5")),
    Target("server of a URL", lambda data: _server_of(wild_text_of(data)), (), (b"redis://h:5/0",)),
    Target("exemplar", lambda data: labels_of(text_of(data)), (), (b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",)),
)  # fmt: skip
__all__ = ["STREAM_EVENTS", "TARGETS"]
