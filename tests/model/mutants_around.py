"""Small ways to break what stands around scripts and worker: readers of events, exporter, tracer, schedules, retention, lanes."""

from __future__ import annotations

from typing import Final

from .mutants import Mutant

READERS: Final = "tests/integration/test_durable_readers.py"
FOLLOWER: Final = "tests/integration/test_follower.py"
TRIM: Final = "tests/lua/test_trim_and_hold.py"
TALLY: Final = "tests/exporters/test_tally.py"
EXPORTER: Final = "tests/exporters/test_exporter.py"
TRAIL: Final = "tests/exporters/test_trail.py"
DELIVERY: Final = "tests/exporters/test_delivery.py"
TRACER: Final = "tests/exporters/test_tracer_faults.py"
SPANS: Final = "tests/unit/test_spans.py"
SCHEDULES: Final = "tests/lua/test_schedules.py"
SLOTS: Final = "tests/unit/test_slots.py"
ADD: Final = "tests/lua/test_add_jobs.py"
RETENTION: Final = "tests/lua/test_retention.py"
PROGRESS: Final = "tests/integration/test_progress.py"
LATE: Final = "tests/integration/test_late_and_lost.py"


def _one(name: str, test: str, file: str, old: str, new: str) -> Mutant:
    return Mutant(name, ((file, old, new),), (test,))


MUTANTS_AROUND: Final = (
    # -- readers of one stream
    _one(
        "a reader's place is saved before its event is handled",
        f"{READERS}::test_a_reader_stopped_inside_a_big_entry_goes_on_inside_it",
        "queue_events.py",
        "                    return event\n",
        "                    self._handled = self._delivered\n                    return event\n",
    ),
    _one(
        "a reader that goes on inside of an entry gets its beginning again",
        f"{READERS}::test_a_reader_stopped_inside_a_big_entry_goes_on_inside_it",
        "operations/following.py",
        "            skip = expected - span.first\n",
        "            skip = 0\n",
    ),
    _one(
        "an entry is taken for another of the same id and numbers",
        f"{READERS}::test_entries_of_a_new_primary_under_the_ids_of_ours_are_read",
        "operations/following.py",
        " and content_of(entry) == self.content",
        "",
    ),
    _one(
        "a saved place fits any entry of its id",
        f"{READERS}::test_an_entry_that_is_not_the_saved_one_is_a_rollback_though_its_id_is_the_same",
        "operations/following.py",
        "is not None and self.position.seq < end <= seq",
        "is None and self.position.seq < 0",
    ),
    _one(
        "a gap is told without its size",
        f"{FOLLOWER}::test_what_was_trimmed_is_told_to_the_event",
        "operations/following.py",
        '(span.first - expected, "trimmed") if',
        '(0, "trimmed") if',
    ),
    _one(
        "a loss is told only when something follows it",
        "tests/integration/test_event_stream.py::test_a_reader_knows_a_loss_before_the_next_event",
        "operations/following.py",
        "        if seq > here.seq and not (yield entry_after(self._keys, here.entry_id)):\n",
        "        if seq < here.seq:\n",
    ),
    _one(
        "a stream that went back is read on as if it had not",
        f"{READERS}::test_a_lost_tail_is_told_though_nothing_follows",
        "operations/following.py",
        "        if here.seq > seq or is_lost:\n",
        "        if here.seq < 0:\n",
    ),
    _one(
        "a stream that went back and on beyond us is read on as if it had not",
        f"{READERS}::test_a_lost_tail_is_told_and_its_numbers_are_read_again",
        "operations/following.py",
        "        if here.seq > seq or is_lost:\n",
        "        if here.seq > seq:\n",
    ),
    _one(
        "what a rollback undid is not counted",
        f"{READERS}::test_a_lost_tail_is_told_and_its_numbers_are_read_again",
        "operations/following.py",
        "        undone = max(0, self.position.seq - to.seq)\n",
        "        undone = 0\n",
    ),
    _one(
        "after a rollback a reader goes on where it was",
        f"{READERS}::test_what_a_new_primary_wrote_before_our_last_entry_is_read",
        "operations/following.py",
        "        self.position, self.is_whole = to, True\n        return Gap(0",
        "        self.is_whole = True\n        return Gap(0",
    ),
    _one(
        "another epoch is taken for the same one",
        f"{READERS}::test_a_queue_made_anew_is_told_and_read_from_its_first_event",
        "operations/following.py",
        "        if epoch != here.epoch:\n            return (yield from self._other_epoch(epoch))\n",
        "",
    ),
    _one(
        "a new name begins at the end",
        f"{READERS}::test_a_new_name_starts_at_the_oldest_kept_event",
        "operations/following.py",
        '        return Position(epoch, "0-0", seq if first is None else first - 1)\n',
        '        return Position(epoch, "0-0", seq)\n',
    ),
    _one(
        "a reader that lost its name reads on",
        f"{READERS}::test_a_holder_that_lost_its_name_saves_nothing_and_stands_by",
        "queue_events.py",
        "            self._lost_name = not hold.held or hold.position.text != handled.text\n",
        "",
    ),
    # -- names and trimming
    _one(
        "two hold one name",
        f"{TRIM}::test_one_process_holds_a_name",
        "lua/hold_consumer.lua",
        "(tonumber(ends) > now or text and ARGV[6] ~= '')",
        "text and ARGV[6] ~= ''",
    ),
    _one(
        "a former holder moves the place",
        f"{TRIM}::test_a_reader_that_lost_its_name_saves_nothing",
        "lua/hold_consumer.lua",
        "(tonumber(ends) > now or text and ARGV[6] ~= '')",
        "tonumber(ends) > now",
    ),
    _one(
        "trimming passes a live reader",
        f"{TRIM}::test_a_live_reader_holds_trimming_back",
        "lua/trim_events.lua",
        "if not over or (last_seq > slowest and retained < hard_bytes) then break end",
        "if not over then break end",
    ),
    _one(
        "a live reader holds trimming back without end",
        f"{TRIM}::test_the_hard_cap_passes_a_live_reader",
        "lua/trim_events.lua",
        "last_seq > slowest and retained < hard_bytes",
        "last_seq > slowest",
    ),
    # -- following many streams
    _one(
        "the place is saved before the sink has flushed",
        f"{TRACER}::test_an_exporter_that_raises_is_tried_again",
        "followed.py",
        "            self.is_broken = self.is_unflushed = True\n",
        "            self.is_broken = True\n",
    ),
    _one(
        "a follower that was away too long goes on",
        f"{FOLLOWER}::test_one_that_was_away_too_long_steps_down",
        "followed.py",
        "        if not hold.held or hold.position.text != position.text:\n            return False\n",
        "",
    ),
    _one(
        "a follower saves what a broken sink may not have handled",
        f"{FOLLOWER}::test_a_sink_that_raises_ends_the_reading_and_it_is_known",
        "followed.py",
        "            self.is_broken = self.is_unflushed = True\n",
        "            self.is_unflushed = False\n",
    ),
    _one(
        "a queue that went back is not doubted",
        f"{FOLLOWER}::test_a_queue_that_went_back_behind_a_connection_is_told",
        "followed.py",
        "        self.doubt = self.doubt or hold.epoch != position.epoch or hold.seq < position.seq or stuck\n",
        "",
    ),
    # -- the exporter
    _one(
        "counters fall after a failover",
        f"{TALLY}::test_after_a_rollback_what_was_undone_stays_counted",
        "eventq_prometheus/tally.py",
        "                offsets[name] = mine[name] - counted.get(name, 0)\n",
        "                mine[name] = expected\n",
    ),
    _one(
        "what a failover undid is counted twice when it comes again",
        f"{TALLY}::test_after_a_rollback_what_was_undone_stays_counted",
        "eventq_prometheus/tally.py",
        "                offsets[name] = mine[name] - counted.get(name, 0)\n",
        "                pass\n",
    ),
    _one(
        "the offset is not saved",
        f"{TALLY}::test_after_a_rollback_what_was_undone_stays_counted",
        "eventq_prometheus/tally.py",
        "            offsets={kind: counts.copy() for kind, counts in saved.offsets.items()},\n",
        "            offsets={},\n",
    ),
    _one(
        "the next epoch is compared as if it were the last",
        f"{TALLY}::test_an_epoch_ends_with_its_totals_and_the_next_one_goes_on_from_there",
        "eventq_prometheus/tally.py",
        "        saved.offsets = {kind: counts.copy() for kind, counts in saved.totals.items()}\n",
        "",
    ),
    _one(
        "a loss is not mended",
        f"{TALLY}::test_a_loss_is_mended_from_the_column",
        "eventq_prometheus/tally.py",
        "                mine[name] = expected\n",
        "                pass\n",
    ),
    _one(
        "an old comparison is used for a later count",
        f"{TALLY}::test_a_comparison_that_comes_late_is_dropped",
        "eventq_prometheus/tally.py",
        "        if self.seq == state.seq:\n",
        "        if self.seq >= state.seq:\n",
    ),
    _one(
        "what was counted before a restart is counted again",
        f"{TALLY}::test_what_was_handled_before_is_passed_over",
        "eventq_prometheus/tally.py",
        "(facts[batch.skip :] if batch.skip else facts, batch)",
        "(facts, batch)",
    ),
    _one(
        "busy time falls",
        f"{TALLY}::test_busy_time_never_falls",
        "eventq_prometheus/tally.py",
        "max(self._saved.busy_ms, busy_ms + self._saved.busy_offset)",
        "busy_ms + self._saved.busy_offset",
    ),
    _one(
        "a new series is not shown at zero first",
        f"{TALLY}::test_a_new_series_is_shown_at_zero_to_one_scrape",
        "eventq_prometheus/views.py",
        "        if not self._zeroes or group in saved.born:\n",
        "        if self._zeroes or group in saved.born:\n",
    ),
    _one(
        "a queue with a past is shown as a burst",
        f"{TALLY}::test_a_queue_that_had_a_life_before_is_shown_as_it_is",
        "eventq_prometheus/tally.py",
        "            if not self._saved.is_based and not self._is_young(state):\n",
        "            if self._saved.is_based and not self._is_young(state):\n",
    ),
    _one(
        "what is not saved is shown",
        f"{EXPORTER}::test_nothing_is_shown_that_is_not_saved",
        "eventq_prometheus/exporter.py",
        "        self._tallies[batch.queue].received(batch)\n",
        "        self._tallies[batch.queue].received(batch)\n"
        "        self._shown[batch.queue] = QueueView(self._tallies[batch.queue].freeze(), {})\n",
    ),
    # -- the tracer
    _one(
        "what was refused counts as sent",
        f"{DELIVERY}::test_who_takes_nothing_is_asked_until_he_does",
        "eventq_opentelemetry/delivery.py",
        "            if await self._export(batch):\n",
        "            if await self._export(batch) or batch:\n",
    ),
    _one(
        "one bad span is left out at the first refusal",
        f"{DELIVERY}::test_a_collector_that_takes_half_of_it_gets_everything",
        "eventq_opentelemetry/delivery.py",
        "                    if doubt.is_proved():\n",
        "                    if True:\n",
    ),
    _one(
        "a flush that is cancelled loses what it made",
        f"{TRACER}::test_a_flush_that_is_cancelled_loses_nothing",
        "eventq_opentelemetry/tracer.py",
        "        out = self._out\n        await",
        "        out, self._out = self._out, Out()\n        await",
    ),
    _one(
        "the id of a run does not depend on its fence",
        f"{SPANS}::test_every_run_has_an_id_of_its_own",
        "spans.py",
        "    return run.scope, run.job_id, run.fence, run.started_ms\n",
        "    return run.scope, run.job_id, 0, run.started_ms\n",
    ),
    _one(
        "queues share the ids of their runs",
        f"{SPANS}::test_queues_do_not_share_spans",
        "spans.py",
        "    return run.scope, run.job_id, run.fence, run.started_ms\n",
        '    return "", run.job_id, run.fence, run.started_ms\n',
    ),
    _one(
        "a run that is open over a restart ends as another span",
        f"{TRAIL}::test_what_is_kept_over_a_restart_makes_the_same_span",
        "eventq_opentelemetry/saved.py",
        "    return _encode(memory).decode()\n",
        "    return _encode(Memory(runs={}, workers=memory.workers)).decode()\n",
    ),
    _one(
        "events that were handled make spans again",
        f"{TRAIL}::test_what_was_handled_before_is_left_alone",
        "eventq_opentelemetry/trail.py",
        "        for index in range(batch.skip, len(facts)):\n",
        "        for index in range(len(facts)):\n",
    ),
    _one(
        "jobs that were added before a restart have two spans",
        f"{TRAIL}::test_what_was_handled_before_is_left_alone",
        "eventq_opentelemetry/trail.py",
        "            self._added(facts[batch.skip :], batch.ms)\n",
        "            self._added(facts, batch.ms)\n",
    ),
    _one(
        "a run whose end is lost stays open",
        f"{TRAIL}::test_a_beginning_whose_end_is_lost",
        "eventq_opentelemetry/trail.py",
        "            run.is_doubtful = True\n",
        "            pass\n",
    ),
    _one(
        "what a failover undid stays open",
        f"{TRAIL}::test_what_a_failover_undid_never_was",
        "eventq_opentelemetry/trail.py",
        '            if event.reason == "rollback" and run.fence > event.seq:\n',
        '            if event.reason == "rollback" and run.fence > event.seq + 1000:\n',
    ),
    # -- schedules
    _one(
        "a slot is fired by everybody who read it",
        f"{SCHEDULES}::test_two_schedulers_fire_a_slot_once",
        "lua/fire_schedule.lua",
        "if revision == ARGV[4] and next_slot == ARGV[5] then",
        "if record ~= '' then",
    ),
    _one(
        "a slot whose job is stored is added again",
        f"{SCHEDULES}::test_a_slot_whose_job_is_stored_is_not_doubled",
        "lua/fire_schedule.lua",
        "redis.call('HEXISTS', jobs_key, job_id) == 1 and 'exists' or 'fired'",
        "'fired'",
    ),
    _one(
        "slots that were missed are not counted",
        f"{SCHEDULES}::test_missed_slots_are_told_before_the_job",
        "lua/fire_schedule.lua",
        '\'","count":\' .. ARGV[7]',
        '\'","count":0\'',
    ),
    _one(
        "a change overwrites what somebody else changed",
        f"{SCHEDULES}::test_a_change_counts_only_for_what_was_read",
        "lua/set_schedule.lua",
        "if revision ~= ARGV[4] or next_slot ~= ARGV[5] then",
        "if revision == '-' then",
    ),
    _one(
        "every slot that was missed runs",
        f"{SLOTS}::test_policies",
        "slots.py",
        "    missed = max(0, len(due) - kept)\n",
        "    missed = 0\n",
    ),
    _one(
        "a slot that is late runs though it is to be skipped",
        f"{SLOTS}::test_policies",
        "slots.py",
        "now_ms - runs[0] > SKIP_LATE_MS:",
        "now_ms - runs[0] > SKIP_LATE_MS * 1000:",
    ),
    # -- adding
    _one(
        "an own id that exists is added again",
        f"{ADD}::test_an_own_id_that_exists_is_not_added_again",
        "lua/add_jobs.lua",
        "(seen[id] or redis.call('HEXISTS', jobs_key, id) == 1)",
        "seen[id]",
    ),
    _one(
        "an own id twice in one batch is added twice",
        f"{ADD}::test_an_own_id_twice_in_one_batch",
        "lua/add_jobs.lua",
        "(seen[id] or redis.call('HEXISTS', jobs_key, id) == 1)",
        "redis.call('HEXISTS', jobs_key, id) == 1",
    ),
    _one(
        "delayed jobs of one millisecond lose their order",
        f"{ADD}::test_delayed_jobs_of_one_ms_keep_their_order",
        "lua/include/line.lua",
        "string.format('%.17g', due + fraction)",
        "string.format('%.17g', due)",
    ),
    _one(
        "nobody is woken for a delayed job due before all others",
        f"{ADD}::test_due_is_armed_only_for_a_job_due_before_all_others",
        "lua/include/arm_due.lua",
        "if not earliest or soonest < earliest then",
        "if not earliest then",
    ),
    # -- retention and timers
    _one(
        "a count is kept to only once a hundred are too many",
        f"{RETENTION}::test_a_count_of_its_own",
        "lua/include/evict.lua",
        "math.min(SLICE, math.floor(keep / 100))",
        "SLICE",
    ),
    _one(
        "one settle removes all that is too many",
        f"{RETENTION}::test_a_settle_removes_at_most_two_slices",
        "lua/include/evict.lua",
        "math.min(excess, 2 * SLICE) - 1",
        "excess - 1",
    ),
    _one(
        "the age rule removes what is young",
        f"{RETENTION}::test_by_age_once_a_second",
        "lua/include/evict.lua",
        "'-inf', '(' .. (now - age), 'LIMIT'",
        "'-inf', '(' .. now, 'LIMIT'",
    ),
    _one(
        "what is kept for ever is evicted by count",
        f"{RETENTION}::test_for_ever_is_out_of_reach_of_the_queues_rules",
        "lua/include/retention.lua",
        "else score = now + PINNED end",
        "end",
    ),
    _one(
        "an evicted job leaves its timer behind",
        f"{RETENTION}::test_an_evicted_jobs_timer_does_not_touch_a_later_job_of_its_id",
        "lua/include/evict.lua",
        "    redis.call('ZREM', timers_key, unpack(ids))\n",
        "",
    ),
    _one(
        "a timer removes a job that runs again",
        f"{RETENTION}::test_a_timer_ends_with_its_job",
        "lua/retry_jobs.lua",
        "  redis.call('ZREM', timers_key, 'keep ' .. move[1])\n",
        "",
    ),
    _one(
        "the record of a writer at work is forgotten",
        "tests/lua/test_numbered_calls.py::test_a_writer_is_forgotten_after_an_idle_day",
        "lua/run_timers.lua",
        "    if last + CALL_KEPT_MS > now then\n",
        "    if last > now then\n",
    ),
    _one(
        "age rules wait for a job that finishes",
        f"{RETENTION}::test_the_queues_ages_hold_where_nothing_finishes_any_more",
        "lua/run_timers.lua",
        "local more = evict(completed_key, 'completed', -1, tonumber(ARGV[5]))",
        "local more = false",
    ),
    # -- lanes and runs
    _one(
        "an outcome overtakes its progress",
        f"{PROGRESS}::test_progress_on_its_way_is_not_overtaken_by_the_outcome",
        "lanes.py",
        "        if settlement.outcome.token in self._reporting:\n",
        "        if settlement.outcome.token in ():\n",
    ),
    _one(
        "a paused worker claims",
        "tests/integration/test_shutdown.py::test_a_paused_worker_leaves_jobs_to_others",
        "lanes.py",
        "        free = self._free() - self._asked if self.claiming else 0\n",
        "        free = self._free() - self._asked\n",
    ),
    _one(
        "what was fenced is not given back",
        f"{LATE}::test_a_run_that_is_fenced_in_its_backoff_strategy_is_given_back",
        "runs.py",
        "            self.give_back([running.held])\n        self.held.pop",
        "            pass\n        self.held.pop",
    ),
)
