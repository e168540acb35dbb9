"""What one queue's events come to, without a server: gaps, epochs, caps, births, what is saved."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from eventq import EventBatch, QueueState
from eventq.events import LostEvent
from eventq_prometheus.catalogue import OVERFLOW
from eventq_prometheus.saved import LAYOUT, Saved, parse_saved
from eventq_prometheus.spread import labels_of
from eventq_prometheus.tally import ATTEMPTS, DRIFT, LATENESS, MOST_NAMES, MOST_TYPES, RUN, TOTAL, WAIT, Tally
from eventq_prometheus.views import QueueView, Sheet

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOW = 1_800_000_000_000


class Bench:
    """A tally that is fed by hand."""

    def __init__(self, text: str = "", *, by_name: bool = False) -> None:
        self.overflows: list[str] = []
        self.tally = Tally("q", text, by_name=by_name, overflowed=self.overflows.append)
        self.by_name = by_name

    def feed(self, kind: str, *facts: dict[str, Any], ms: int = NOW, skip: int = 0, raw: str | None = None) -> None:
        text = json.dumps(facts) if raw is None else raw
        count = max(1, len(facts))
        self.tally.received(EventBatch("q", kind, self.tally.seq + 1, count, ms, text, skip))

    def compare(self, seq: int | None = None, **totals: int) -> None:
        seq = self.tally.seq if seq is None else seq
        column = {field.replace("__", " ", 1): n for field, n in totals.items()}
        self.tally.compare(QueueState(NOW, "e", seq, False, 0, None, None, {}, {}, [], [], column, 0))

    @property
    def saved(self) -> Saved:
        return self.tally.freeze()

    def sheet(self, *, zeroes: bool = False) -> Sheet:
        sheet = Sheet(zeroes=zeroes, per_worker=False, by_name=self.by_name)
        sheet.queue("q", QueueView(self.saved, self.tally.examples()))
        return sheet

    def shown(self, name: str, *, zeroes: bool = False, **labels: str) -> float:
        wanted = labels.items()
        samples = [sample for family in self.sheet(zeroes=zeroes).families() for sample in family.samples]
        return sum(sample.value for sample in samples if sample.name == name and wanted <= sample.labels.items())


def test_every_kind_is_counted_where_it_belongs() -> None:
    """One of each."""
    bench = Bench()
    bench.feed("added", {"name": "a"}, {"name": "a", "schedule": "tick", "slot_ms": NOW - 40})
    bench.feed("duplicated", {"name": "a"})
    bench.feed("active", {"name": "a", "waited_ms": 70})
    bench.feed("progress", {"name": "a", "progress": {"x": 1}})
    bench.feed("retrying", {"name": "a", "attempt": 1, "ran_ms": 8, "error": {"type": "E", "message": "m"}})
    bench.feed("waiting", {"name": "a", "previous": "delayed", "due_ms": NOW - 500}, {"name": "a", "previous": "failed"})
    bench.feed("completed", {"name": "a", "attempt": 2, "waited_ms": 70, "ran_ms": 30})
    bench.feed("failed", {"name": "a", "attempt": 3, "ran_ms": 9, "total_ms": 20_000, "exhausted": True, "error": {"type": "E"}})
    bench.feed("failed", {"name": "a", "attempt": 1, "reason": "stalled", "error": {"type": "Stalled"}})
    bench.feed("stalled", {"name": "a"})
    bench.feed("released", {"name": "a"})
    bench.feed("delayed", {"name": "a", "previous": "active"}, {"name": "a", "previous": "waiting"})
    bench.feed("removed", {"job_ids": ["x", "y", "z"]})
    bench.feed("schedule_missed", {"schedule_id": "tick", "count": 4})
    bench.feed("error", {"type": "LeaseLost"}, {"type": "OSError"})
    bench.feed("drained", {})
    bench.feed("of a newer version", {"name": "a"})
    bench.tally.busy(1500)
    saved = bench.saved
    assert {kind: counts["a"] for kind, counts in saved.totals.items()} == {
        "added": 2, "starts": 1, "retrying": 1, "completed": 1, "failed": 2, "exhausted": 1, "stalled": 2, "released": 2,
    }  # fmt: skip
    assert saved.more == {"duplicated": {"a": 1}, "progress": {"a": 1}}
    assert saved.errors == {"a": {"E": 2, "Stalled": 1}}
    assert saved.plain == {"promoted": 1, "removed": 3, "worker_errors": 2, "leases_lost": 1}
    assert (saved.missed, saved.busy_ms) == ({"tick": 4}, 1500)
    assert (saved.events["waiting"], saved.events["of a newer version"], saved.events["drained"]) == (2, 1, 1)
    spreads = {
        (metric, key): (spread.count, spread.sum) for metric, keys in saved.spreads.items() for key, spread in keys.items()
    }
    assert spreads == {
        (WAIT, ""): (1, 70), (DRIFT, ""): (1, 40), (LATENESS, ""): (1, 500), (RUN, "completed"): (1, 30), (RUN, "retried"): (1, 8),
        (RUN, "failed"): (2, 9), (TOTAL, ""): (3, 100 + 20_000), (ATTEMPTS, ""): (3, 6000),
    }  # fmt: skip
    bench.compare(added__a=2)
    assert bench.shown("eventq_job_attempts_failed_total") == 3
    assert bench.shown("eventq_jobs_finished_total") == 3
    assert bench.shown("eventq_worker_busy_seconds_total") == 1.5


@pytest.mark.parametrize(("ms", "bound"), [(0, "0.005"), (5, "0.005"), (6, "0.025"), (3_600_000, "3600.0"), (3_600_001, "+Inf")])
def test_a_value_is_in_the_bucket_whose_bound_it_does_not_pass(ms: int, bound: str) -> None:
    """Bounds are inclusive, as Prometheus has them."""
    bench = Bench()
    bench.feed("active", {"name": "a", "waited_ms": ms})
    family = next(family for family in bench.sheet().families() if family.name == WAIT)
    first = next(sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket") and sample.value == 1)
    assert first == bound


def test_what_was_handled_before_is_passed_over() -> None:
    """The first events of a batch, when reading goes on in the middle of it."""
    bench = Bench()
    bench.feed("added", {"name": "a"}, {"name": "b"}, {"name": "c"}, skip=2)
    assert bench.saved.totals == {"added": {"c": 1}}
    assert (bench.saved.events, bench.tally.seq) == ({"added": 1}, 3)


def test_a_loss_is_mended_from_the_column() -> None:
    """When everything up to the same event is in; not before, and not by what is older."""
    bench = Bench()
    bench.feed("added", {"name": "a"})
    bench.compare(added__a=1)
    bench.tally.lost(LostEvent(queue="q", seq=1, count=10, reason="trimmed"))
    assert bench.tally.seq == 11
    bench.compare(seq=12, added__a=12, starts__b=3)
    assert bench.saved.totals == {"added": {"a": 1}}
    bench.feed("added", {"name": "a"})
    assert bench.saved.totals == {"added": {"a": 12}, "starts": {"b": 3}}
    bench.compare(seq=5, added__a=5)
    assert bench.saved.totals["added"] == {"a": 12}
    assert bench.shown("eventq_events_lost_total", cause="trimmed") == 10


def test_a_comparison_that_comes_late_is_dropped() -> None:
    """What the queue had counted up to an event that was passed meanwhile, cannot be compared any more."""
    bench = Bench()
    bench.compare(seq=2, added__a=2)
    bench.feed("added", {"name": "a"}, {"name": "a"}, {"name": "a"})
    assert (bench.tally.is_based, bench.saved.totals) == (False, {"added": {"a": 3}})


def test_after_a_rollback_what_was_undone_stays_counted() -> None:
    """As an offset: the next comparison, and a loss after it, count from there."""
    bench = Bench()
    bench.feed("added", *[{"name": "a"}] * 10)
    bench.compare(added__a=10)
    bench.tally.lost(LostEvent(queue="q", seq=6, count=0, reason="rollback", undone=4))
    bench.feed("added", {"name": "a"})
    bench.compare(added__a=7)
    assert (bench.saved.totals, bench.saved.offsets) == ({"added": {"a": 11}}, {"added": {"a": 4}})
    bench.tally.lost(LostEvent(queue="q", seq=7, count=5, reason="trimmed"))
    bench.compare(added__a=12)
    assert bench.saved.totals == {"added": {"a": 16}}
    assert bench.shown("eventq_events_undone_total") == 4


def test_an_epoch_ends_with_its_totals_and_the_next_one_goes_on_from_there() -> None:
    """Also where events of both are lost."""
    bench = Bench()
    bench.feed("added", {"name": "a"})
    bench.compare(added__a=1)
    bench.tally.busy(1000)
    bench.feed("obliterated", {"count": 1, "totals": {"busy_ms": 1700, "added a": 5}})
    assert (bench.tally.seq, bench.saved.totals, bench.saved.busy_ms) == (0, {"added": {"a": 5}}, 1700)
    bench.tally.lost(LostEvent(queue="q", seq=0, count=3, reason="trimmed"))
    bench.compare(added__a=3)
    bench.tally.busy(200)
    assert (bench.saved.totals, bench.saved.busy_ms) == ({"added": {"a": 8}}, 1900)


def test_busy_time_never_falls() -> None:
    """Whatever Redis forgot: workers say it again, so it is not counted again either."""
    bench = Bench()
    for told, shown in ((1000, 1000), (400, 1000), (500, 1000), (1100, 1100)):
        bench.tally.busy(told)
        assert bench.saved.busy_ms == shown


def test_what_cannot_be_decoded_is_counted_as_lost(caplog: pytest.LogCaptureFixture) -> None:
    """With its kind, and without its text in the log."""
    bench = Bench()
    bench.feed("completed", raw='[{"name": 5, "secret": "canary"}]')
    bench.feed("added", raw="no JSON canary")
    assert bench.saved.plain == {"undecodable": 2}
    assert "canary" not in caplog.text and "completed events cannot be read" in caplog.text


def test_names_types_and_kinds_are_capped() -> None:
    """Beyond the cap they are one value, and counted as such."""
    bench = Bench(by_name=True)
    for number in range(MOST_NAMES + 50):
        bench.feed("added", {"name": f"n{number}"})
    for number in range(MOST_TYPES + 5):
        bench.feed("retrying", {"name": "n0", "error": {"type": f"E{number}"}})
    for number in range(60):
        bench.feed(f"kind{number}", {})
    for number in range(210):
        bench.feed("schedule_missed", {"schedule_id": f"s{number}", "count": 1})
    saved = bench.saved
    assert len(saved.totals["added"]) == MOST_NAMES + 1 and saved.totals["added"][OVERFLOW] == 50
    assert len(saved.errors["n0"]) == MOST_TYPES + 1 and saved.errors["n0"][OVERFLOW] == 5
    assert saved.missed[OVERFLOW] == 10 and len(saved.missed) == 201
    assert len(saved.events) == 41
    assert {label: bench.overflows.count(label) for label in ("job_name", "error_type", "scheduler")} == {
        "job_name": 50, "error_type": 5, "scheduler": 10,
    }  # fmt: skip


def test_a_new_series_is_shown_at_zero_to_one_scrape() -> None:
    """Then as it is; whoever is no scraper sees it as it is at once."""
    bench = Bench()
    bench.feed("added", {"name": "a"}, ms=NOW - 1000)
    bench.feed("failed", {"name": "a", "error": {"type": "E"}}, ms=NOW - 1000)
    bench.compare(added__a=1, failed__a=1)
    assert bench.shown("eventq_jobs_failed_total") == 1
    for metric in ("eventq_jobs_failed_total", "eventq_job_errors_total", f"{RUN}_count", "eventq_events_processed_total"):
        assert bench.shown(metric, zeroes=True) == 0
    bench.tally.bear(bench.sheet(zeroes=True).unborn["q"])
    assert bench.shown("eventq_jobs_failed_total", zeroes=True) == 1
    assert bench.sheet(zeroes=True).unborn == {}
    again = Bench(bench.saved.text)
    assert again.shown("eventq_jobs_failed_total", zeroes=True) == 1
    again.feed("added", {"name": "b"})
    assert again.shown("eventq_jobs_added_total", zeroes=True) == 1


def test_a_queue_that_had_a_life_before_is_shown_as_it_is() -> None:
    """What was counted before anybody looked is no increase."""
    bench = Bench()
    bench.feed("added", {"name": "a"}, ms=NOW - 3_600_000)
    bench.compare(added__a=1_000_000)
    assert bench.shown("eventq_jobs_added_total", zeroes=True) == 1_000_000
    assert bench.shown(f"{WAIT}_count", zeroes=True) == 0


def test_totals_are_not_shown_before_they_are_known() -> None:
    """No number is better than one that lacks what came before."""
    bench = Bench()
    bench.feed("added", {"name": "a"})
    assert "eventq_jobs_added" not in {family.name for family in bench.sheet().families()}
    bench.compare(added__a=1)
    assert bench.shown("eventq_jobs_added_total") == 1


def test_histograms_can_be_asked_for_by_name_and_not_any_more() -> None:
    """Those of the whole queue go on all the while; those by name stand still while nobody asks for them, and never fall."""

    def run(text: str, by_name: bool) -> Bench:
        bench = Bench(text, by_name=by_name)
        bench.feed("active", {"name": "a", "waited_ms": 1}, {"name": "b b", "waited_ms": 2})
        bench.feed("completed", {"name": "a", "ran_ms": 5}, {"name": "b b", "ran_ms": 6})
        bench.feed("waiting", {"name": "a", "previous": "delayed", "due_ms": NOW})
        bench.compare(added__a=1)
        return bench

    whole, text = 0, ""
    for lives, by_name in enumerate((False, True, False, True), 1):
        bench = run(text, by_name)
        text = bench.saved.text
        if by_name:
            whole += 2
            assert bench.shown(f"{WAIT}_count", job_name="b b") == whole / 2
            assert bench.shown(f"{RUN}_count", outcome="completed") == whole
        else:
            assert bench.shown(f"{WAIT}_count") == 2 * lives
            assert bench.shown(f"{RUN}_sum", outcome="completed") == pytest.approx(0.011 * lives)
        assert bench.shown(f"{LATENESS}_count") == lives


@pytest.mark.parametrize(
    "text", ["no JSON", "[]", f'{{"layout": {LAYOUT + 1}}}', '{"totals": {"added": {"a": "many"}}}']
)  # fmt: skip
def test_a_state_that_cannot_be_read_begins_anew_and_says_so(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Of a newer exporter, or damaged."""
    bench = Bench(text)
    assert bench.saved == Saved()
    assert "begin anew" in caplog.text


def test_what_is_saved_is_what_is_read_back() -> None:
    """To the last unit, and byte by byte the same each time."""
    bench = Bench(by_name=True)
    bench.feed("completed", {"name": "a", "ran_ms": 123, "traceparent": TRACE})
    bench.compare(completed__a=1)
    text = bench.saved.text
    assert parse_saved(text) == bench.saved
    assert Bench(text, by_name=True).saved.text == text
    assert "traceparent" not in text and TRACE not in text
    assert msgspec.json.decode(text)["totals"] == {"completed": {"a": 1}}


def test_buckets_carry_the_latest_trace() -> None:
    """With its value and its time."""
    bench = Bench()
    bench.feed("completed", {"name": "a", "ran_ms": 7, "traceparent": TRACE}, {"name": "a", "ran_ms": 900}, ms=NOW)
    family = next(family for family in bench.sheet().families() if family.name == RUN)
    found = [sample for sample in family.samples if sample.exemplar]
    assert [(s.labels["le"], s.exemplar.value, s.exemplar.timestamp) for s in found if s.exemplar] == [
        ("0.01", 0.007, NOW / 1000)
    ]
    assert found[0].exemplar is not None
    assert found[0].exemplar.labels == {"trace_id": TRACE.split("-")[1], "span_id": TRACE.split("-")[2]}


@pytest.mark.parametrize("text", ["", "x", TRACE[:-2] + "00", "00-12-34-01", "00-" + "a" * 32 + "-" + "b" * 16])
def test_a_trace_that_is_not_kept_is_no_example(text: str) -> None:
    """Unsampled or malformed."""
    assert labels_of(text) is None


def test_names_that_change_from_epoch_to_epoch_are_counted_once() -> None:
    """Past the cap they are the rest, under whatever name the queue lists them; labels stay under the cap."""
    bench = Bench()
    for epoch in range(4):
        names = [f"e{epoch}-{number}" for number in range(MOST_NAMES)]
        bench.feed("added", *[{"name": name} for name in names])
        bench.compare(**{f"added__{name}": 1 for name in names})
        bench.feed("obliterated", {"count": 100, "totals": {f"added {name}": 1 for name in names}})
    added = bench.saved.totals["added"]
    assert sum(added.values()) == 4 * MOST_NAMES and len(added) == MOST_NAMES + 1
    assert added[OVERFLOW] == 3 * MOST_NAMES


def test_a_queue_that_is_past_its_cap_before_it_is_followed() -> None:
    """It counts as the rest what stands under its own name here: once, not twice."""
    bench = Bench()
    bench.feed("added", {"name": "late"}, {"name": "late"})
    column = {f"added__n{number}": 1 for number in range(MOST_NAMES - 1)}
    bench.compare(**column, added____other__=7)
    assert sum(bench.saved.totals["added"].values()) == MOST_NAMES - 1 + 7
    bench.feed("added", {"name": "late"})
    bench.compare(**column, added____other__=8)
    assert sum(bench.saved.totals["added"].values()) == MOST_NAMES - 1 + 8


def test_an_epoch_that_ends_without_a_word_is_gone_on_from() -> None:
    """FLUSHALL, and what came first in the new one is lost."""
    bench = Bench()
    bench.feed("added", *[{"name": "a"}] * 1000)
    bench.compare(added__a=1000)
    bench.tally.busy(500)
    bench.tally.lost(LostEvent(queue="q", seq=0, count=0, reason="rollback", undone=1000))
    bench.tally.lost(LostEvent(queue="q", seq=0, count=1990, reason="trimmed"))
    bench.feed("added", *[{"name": "a"}] * 10)
    bench.compare(added__a=2000)
    bench.tally.busy(30)
    assert (bench.saved.totals["added"], bench.saved.busy_ms) == ({"a": 3000}, 530)


def test_a_comparison_that_is_waited_for_is_not_put_off() -> None:
    """A reader that is always a little behind comes to it all the same."""
    bench = Bench()
    for number in range(5):
        bench.compare(seq=5 + number, added__a=5 + number)
        bench.feed("added", {"name": "a"})
    assert bench.tally.is_based and bench.saved.totals == {"added": {"a": 5}}


def test_an_old_queue_without_events_is_no_burst() -> None:
    """Its stream was emptied before anybody followed it."""
    bench = Bench()
    bench.tally.seq = 500
    bench.compare(added__a=1000)
    assert bench.shown("eventq_jobs_added_total", zeroes=True) == 1000
