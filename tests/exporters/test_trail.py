"""One queue's events on their way to spans, without Redis: what is lost, damaged, obliterated, forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, StaticSampler

from eventq import EventBatch
from eventq.events import LostEvent
from eventq_opentelemetry import saved
from eventq_opentelemetry.building import Style
from eventq_opentelemetry.saved import Memory, memory_of, memory_text
from eventq_opentelemetry.trail import Out, Trail, Wants

NOW = 1_800_000_000_000
DAY = 86_400_000


class Play:
    """A trail that is fed by hand."""

    def __init__(self, memory: Memory | None = None, **wants: Any) -> None:
        self.out = Out()
        self.seq = 0
        options: dict[str, Any] = {"sampler": ALWAYS_ON, "style": Style(), **wants}
        self.trail = Trail("q", memory or Memory(), Wants(**options))

    def tell(self, kind: str, *facts: dict[str, Any], ms: int = NOW, skip: int = 0) -> None:
        """Feed it one entry."""
        batch = EventBatch("q", kind, self.seq + 1, len(facts), ms, json.dumps(facts), skip)
        self.seq += len(facts)
        self.trail.received(batch, self.out)

    def lose(self, reason: str, seq: int = 0) -> None:
        """Tell it that events are missing."""
        self.trail.lost(LostEvent(queue="q", seq=seq, count=5, reason=reason), self.out)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The attributes of the `process` spans so far."""
        return [dict(span.attributes or {}) for span in self.out.spans if span.name == "process q"]


def active(job_id: str, **facts: Any) -> dict[str, Any]:
    """Return the facts of a claim."""
    return {"job_id": job_id, "name": "n", "attempt": 1, "worker": "w", "waited_ms": 7, **facts}


def done(job_id: str, **facts: Any) -> dict[str, Any]:
    """Return the facts of an end."""
    return active(job_id, ran_ms=5, **facts)


def test_a_run_is_over_when_its_end_is_read() -> None:
    """Until then nothing is said of it, and it is kept."""
    play = Play()
    play.tell("active", active("a"))
    assert not play.out.spans and ["a"] == list(play.trail.memory.runs)
    play.tell("completed", done("a"), ms=NOW + 5)
    assert ["queued q", "process q"] == [span.name for span in play.out.spans] and not play.trail.memory.runs


def test_what_was_handled_before_is_left_alone() -> None:
    """The first events of an entry that are to be skipped make no span."""
    play = Play()
    play.tell("added", {"job_id": "a", "name": "n"}, {"job_id": "b", "name": "n"}, skip=1)
    assert ["b"] == [(span.attributes or {})["messaging.message.id"] for span in play.out.spans]
    play.tell("completed", done("a"), done("b"), skip=1)
    assert ["b"] == [run["messaging.message.id"] for run in play.runs]


def test_an_end_whose_beginning_is_lost() -> None:
    """It has a span that says so: its children know another id."""
    play = Play()
    play.tell("completed", done("a"))
    assert [True] == [run.get("eventq.span.incomplete") for run in play.runs]


def test_a_beginning_whose_end_is_lost() -> None:
    """A job that begins anew, or a day, says that the end will not come any more."""
    play = Play()
    play.tell("active", active("a"), active("b"), active("c"))
    play.lose("trimmed")
    play.tell("active", active("a"), ms=NOW + 10)
    assert ["lost"] == [run["eventq.job.outcome"] for run in play.runs]
    play.tell("completed", done("c"), ms=NOW + 20)
    play.tell("drained", {}, ms=NOW + DAY + 1)
    play.tell("added", {"job_id": "x", "name": "n"}, ms=NOW + DAY + 1)
    outcomes = {run["messaging.message.id"]: run["eventq.job.outcome"] for run in play.runs}
    assert {"a": "lost", "b": "lost", "c": "completed"} == outcomes
    assert ["a"] == list(play.trail.memory.runs)


def test_a_run_of_two_days_is_none_that_is_lost() -> None:
    """Where no events are missing, it simply takes long."""
    play = Play()
    play.tell("active", active("a"))
    play.tell("added", {"job_id": "x", "name": "n"}, ms=NOW + 2 * DAY)
    assert ["a"] == list(play.trail.memory.runs)


def test_what_a_failover_undid_never_was() -> None:
    """Runs that began after the last event that is still true end; those before go on."""
    play = Play()
    play.tell("active", active("a"), active("b"))
    play.lose("rollback", seq=1)
    assert ["b"] == [run["messaging.message.id"] for run in play.runs]
    assert ["a"] == list(play.trail.memory.runs)


def test_the_end_of_a_queue_ends_its_runs() -> None:
    """Obliterated: nothing of it goes on, and nothing links to it."""
    play = Play()
    play.tell("retrying", done("b", error={"type": "E", "message": "m"}))
    play.tell("active", active("a"))
    play.tell("obliterated", {"count": 2})
    assert not play.trail.memory.runs and not play.trail.memory.previous
    assert "lost" == play.runs[-1]["eventq.job.outcome"]


def test_only_a_postponed_job_ends_a_run() -> None:
    """A change of delay is a `delayed` event too."""
    play = Play()
    play.tell("active", active("a"))
    play.tell("delayed", {"job_id": "b", "name": "n", "previous": "delayed"})
    assert not play.out.spans
    play.tell("delayed", done("a", previous="active"), ms=NOW + 5)
    assert ["postponed"] == [run["eventq.job.outcome"] for run in play.runs]


def test_progress_is_a_number() -> None:
    """An object may hold anything, so it is not told; a hundred are, and no more."""
    play = Play()
    play.tell("active", active("a"))
    for number in range(150):
        play.tell("progress", {"job_id": "a", "progress": number}, {"job_id": "a", "progress": {"secret": 1}})
    play.tell("completed", done("a"))
    events = [event.attributes for event in play.out.spans[-1].events]
    assert [{"eventq.job.progress": float(number)} for number in range(100)] == events
    assert {float} == {type(each["eventq.job.progress"]) for each in events if each}


def test_a_number_that_is_none_to_anybody_else_is_left_out() -> None:
    """Python counts further than floats do."""
    play = Play()
    play.tell("active", active("a"))
    play.tell("progress", {"job_id": "a", "progress": 10**400})
    play.tell("completed", done("a"))
    assert not play.out.spans[-1].events


def test_what_is_kept_over_a_restart_makes_the_same_span() -> None:
    """To the byte, whatever went on meanwhile."""

    def told(restarts: bool) -> str:
        play = Play()
        play.tell(
            "worker_started", {"worker": "w", "resource": {"service.name": "s", "process.pid": "47"}, "processors": {"": "f"}}
        )
        play.tell("retrying", done("a", error={"type": "E", "message": "m"}))
        play.tell("active", active("a", attempt=2, added_ms=NOW - 5))
        play.tell("progress", {"job_id": "a", "progress": 50})
        if restarts:
            play.trail.memory = memory_of(memory_text(play.trail.memory)) or Memory()
        play.tell("completed", done("a"), ms=NOW + 5)
        return str(play.out.spans[-1].to_json())

    assert told(False) == told(True)


def test_only_what_is_recorded_and_sampled_is_sent() -> None:
    """A sampler may have spans recorded that are for nobody to see; the worker's SDK sends none of them either."""

    class RecordOnly(StaticSampler):
        def __init__(self) -> None:
            super().__init__(Decision.RECORD_ONLY)

    play = Play(sampler=RecordOnly())
    play.tell("added", {"job_id": "a", "name": "n"})
    play.tell("active", active("a"))
    play.tell("completed", done("a"))
    assert not play.out.spans and 1 == play.out.unsampled


def test_a_run_whose_beginning_is_lost_hangs_on_nothing() -> None:
    """When its job was added is not known, and so the span is not that created it: it is a root without that link."""
    play = Play()
    play.tell("completed", done("a", traceparent=f"00-{7:032x}-{8:016x}-01"))
    (span,) = play.out.spans
    assert span.parent is None and not span.links


def test_what_nobody_knows_the_end_of_is_kept_and_says_why() -> None:
    """Whether it was sampled is not known either, nor whether it will run again."""
    play = Play()
    play.tell("active", active("a"))
    play.tell("obliterated", {"count": 1})
    (run,) = play.runs
    assert ("lost", True) == (run["eventq.sampling.reason"], run["eventq.span.incomplete"])
    assert "eventq.job.will_retry" not in run and play.out.spans[-1].parent is None


def test_log_records_say_no_more_than_spans() -> None:
    """Neither messages nor stack traces where those are not wanted; redacted ones where they are; a redact that raises says nothing."""
    error = {"type": "E", "message": "canary"}

    def told(style: Style) -> str:
        play = Play(logs=True, style=style)
        play.tell("active", active("a"))
        play.tell("failed", done("a", error=error, reason="error", span={"stacktrace": "canary"}))
        return f"{play.out.logs[0].to_json()} {play.out.spans[-1].to_json()}"

    def broken(_: str) -> str:
        raise RuntimeError("redact is broken")

    assert "canary" in told(Style())
    for style in (Style(messages=False), Style(redact=lambda _: "xxx"), Style(redact=broken)):
        assert "canary" not in told(style)


def test_an_error_that_user_code_declared_has_a_type() -> None:
    """Its own, or that of all others."""
    play = Play()
    for said, expected in (({"error.type": "Soft"}, "Soft"), ({}, "_OTHER")):
        play.tell("active", active("a"))
        play.tell("completed", done("a", span={"status": "error", "attributes": said}))
        assert expected == play.runs[-1]["error.type"]


@pytest.mark.parametrize("span", [7, {"attributes": 7}, {"events": [["x"]]}, {"links": [["zz", "zz", {}]]}, None])
def test_what_somebody_else_wrote_is_left_out(span: Any) -> None:
    """A run whose processor's words cannot be read has its span all the same."""
    play = Play()
    play.tell("active", active("a"))
    play.tell("completed", done("a", span=span, unknown=[1, 2]), ms=NOW + 5)
    assert ["completed"] == [run["eventq.job.outcome"] for run in play.runs]


def test_user_code_does_not_speak_for_the_tracer() -> None:
    """What is ours to say, or OpenTelemetry's, it cannot overwrite; everything else it can."""
    play = Play()
    play.tell("active", active("a"))
    said = {"messaging.system": "x", "eventq.job.name": "x", "error.type": "x", "tenant": "acme", "nothing": None}
    play.tell("completed", done("a", span={"attributes": said, "name": "charge card"}), ms=NOW + 5)
    span = play.out.spans[-1]
    assert "charge card" == span.name
    told = dict(span.attributes or {})
    assert ("eventq", "n", "acme") == (told["messaging.system"], told["eventq.job.name"], told["tenant"])
    assert "error.type" not in told and "nothing" not in told


def test_events_of_user_code_stay_inside_of_the_span() -> None:
    """Clocks differ: what would lie outside is moved to its edge."""
    play = Play()
    play.tell("active", active("a"))
    said = {"events": [["early", -5_000_000_000, {}], ["inside", 2_000_000, {}], ["late", 5_000_000_000, {}]]}
    play.tell("completed", done("a", span=said), ms=NOW + 5)
    span = play.out.spans[-1]
    assert [NOW, NOW + 2, NOW + 5] == [event.timestamp // 1_000_000 for event in span.events]


def test_what_is_kept_is_bounded_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last run of so many jobs, so many workers and bulks: the oldest go. Saved and read back it is the same."""
    for name in ("PREVIOUS_RUNS", "WORKERS", "BULKS"):
        monkeypatch.setattr(saved, name, 3)
    play = Play()
    for number in range(5):
        play.tell("retrying", done(f"j{number}", error={"type": "E", "message": "m"}))
        play.tell("worker_started", {"worker": f"w{number}", "resource": {"service.name": "s"}, "processors": {"": "f"}})
        traceparent = f"00-{number + 1:032x}-{number + 1:016x}-01"
        play.tell("added", {"job_id": f"b{number}", "name": "n", "traceparent": traceparent, "batch": f"{number}.2"})
    play.tell("active", active("open"))
    memory = play.trail.memory
    assert [["j2", "j3", "j4"], ["w2", "w3", "w4"], ["2.2", "3.2", "4.2"]] == [
        list(kept) for kept in (memory.previous, memory.workers, memory.bulks)
    ]
    assert memory_of(memory_text(memory)) == memory


def test_a_worker_that_went_is_forgotten() -> None:
    """Not while one of its runs has no end."""
    play = Play()
    play.tell("worker_started", {"worker": "w"}, {"worker": "v"})
    play.tell("active", active("a"))
    play.tell("worker_stopped", {"worker": "w"}, {"worker": "v"})
    assert ["w"] == list(play.trail.memory.workers)


@pytest.mark.parametrize("text", ["{", "[]", '{"version":2}', '{"runs":7}'])
def test_what_cannot_be_read_is_begun_anew(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """With a line in the log."""
    assert memory_of(text) is None
    assert "cannot be read" in caplog.text


def test_exceptions_are_log_records_where_that_is_wanted() -> None:
    """With the span's ids, its severity, the conventional name, and what was raised."""
    play = Play(logs=True)
    play.tell("active", active("a"))
    play.tell("failed", done("a", error={"type": "shop.Declined", "message": "no money"}, reason="error"), ms=NOW + 5)
    (record,) = [each.log_record for each in play.out.logs]
    context: Any = play.out.spans[-1].context
    assert ("messaging.process.exception", "ERROR", 17) == (
        record.event_name,
        record.severity_text,
        record.severity_number.value if record.severity_number else 0,
    )
    assert (context.trace_id, context.span_id) == (record.trace_id, record.span_id)
    attributes = dict(record.attributes or {})
    assert ("shop.Declined", "no money", "a") == tuple(
        attributes[key] for key in ("exception.type", "exception.message", "messaging.message.id")
    )


def test_a_clock_that_went_back_makes_no_negative_span() -> None:
    """Its start is its end then."""
    play = Play()
    play.tell("active", active("a", waited_ms=0))
    play.tell("completed", done("a"), ms=NOW - 500)
    span = play.out.spans[-1]
    assert (span.start_time or 0) <= (span.end_time or 0)
