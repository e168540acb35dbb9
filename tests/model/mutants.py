"""Small ways to break eventq, each undoing one guard, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MODEL: Final = "tests/model/test_model.py::test_the_queue_is_what_the_model_says"
DURABILITY: Final = "tests/integration/test_durability.py"
NUMBERED: Final = "tests/lua/test_numbered_calls.py"
REPAIR: Final = "tests/lua/test_repair.py"
SIGNED: Final = "tests/integration/test_signing.py"


@dataclass(frozen=True)
class Mutant:
    """edits: (file of the package, old text, new text); the old text stands in that file exactly once.

    tests: what must fail. quick: caught in a moment, so that every run of the suite shows that mutants are caught.
    """

    name: str
    edits: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...] = (MODEL,)
    quick: bool = False

    @property
    def by_file(self) -> dict[str, list[tuple[str, str]]]:
        """The edits by file."""
        return {file: [(old, new) for other, old, new in self.edits if other == file] for file, _, _ in self.edits}


MUTANTS: Final = (
    # -- the scripts
    Mutant(
        "settle takes any token",
        (
            (
                "lua/include/settle.lua",
                "local prefix, text = 'active ' .. argv[at + 1] .. ' ', current[index]",
                "local text = current[index]\n  local prefix = match(text or '', '^active %S+ ') or '?'",
            ),
        ),
        quick=True,
    ),
    Mutant(
        "settle writes the result before it checks the token",
        (
            (
                "lua/include/settle.lua",
                "  if not text or done[id] or",
                "  if argv[at + 4] ~= '' then redis.call('HSET', results_key, id, argv[at + 4]) end\n  if not text or done[id] or",
            ),
        ),
    ),
    Mutant(
        "settle leaves the lease",
        (("lua/include/settle.lua", "  redis.call('ZREM', leases_key, unpack(recorded))\n", ""),),
    ),
    Mutant(
        "settle takes a run twice in one batch",
        (("lua/include/settle.lua", "if not text or done[id] or not rest", "if not text or not rest"),),
    ),
    Mutant(
        "renewal resurrects",
        (
            (
                "lua/renew_leases.lua",
                "  if runs[index] and string.sub(runs[index], 1, #prefix) == prefix then",
                "  if runs[index] then redis.call('HSET', runs_key, id, (string.gsub(runs[index], '^%S+ %S+ ', prefix, 1)))",
            ),
            ("lua/renew_leases.lua", "'ZADD', leases_key, 'XX', unpack", "'ZADD', leases_key, unpack"),
        ),
    ),
    Mutant(
        "renewal takes any token",
        (("lua/renew_leases.lua", "local prefix = 'active ' .. ARGV[4 + index * 2] .. ' '", "local prefix = 'active '"),),
    ),
    Mutant(
        "replay ignored",
        (("lua/include/call.lua", "  if number == last then replayed = reply end\n", ""),),
        tests=(f"{NUMBERED}::test_the_same_call_twice_has_one_effect",),
        quick=True,
    ),
    Mutant(
        "replay ignored, as the model sees it",
        (("lua/include/call.lua", "  if number == last then replayed = reply end\n", ""),),
    ),
    Mutant(
        "replayed claim hands out what was taken away",
        (("lua/include/replay.lua", "local ours = record and run and", "local ours = record and run or"),),
    ),
    Mutant(
        "an older call runs",
        (("lua/include/call.lua", "  if tonumber(number) < tonumber(last) then return {'STALE', last} end\n", ""),),
    ),
    Mutant(
        "a hole is handed out",
        (
            (
                "lua/include/claim.lua",
                "in_line = string.sub(run, 1, #state + 1) == state .. ' ' or not match(run, RUN)",
                "in_line = true",
            ),
        ),
    ),
    Mutant(
        "a hole is not dropped",
        (
            (
                "lua/include/claim.lua",
                "if taken > 0 then redis.call('LPOP', wait_key, taken) end",
                "if taken > holes then redis.call('LPOP', wait_key, taken - holes) end",
            ),
        ),
    ),
    Mutant(
        "a removed job leaves no hole to count",
        (("lua/remove_jobs.lua", "if holes > 0 then add_to(meta_key, 'holes', holes) end\n", ""),),
    ),
    Mutant(
        "claim loses a job's place among its priority",
        (("lua/include/claim.lua", "(places[id] or '-')", "'-'"),),
    ),
    Mutant(
        "the last-chance rule is ignored",
        (("lua/include/claim.lua", "if run and in_line and max_stalls > 0 then", "if run and in_line and max_stalls < 0 then"),),
    ),
    Mutant(
        "two on their last chance in one claim",
        (("lua/include/claim.lua", "      if is_last_chance then may_risk = false end\n", ""),),
    ),
    Mutant(
        "what is passed over goes to the tail",
        (
            (
                "lua/include/claim.lua",
                "redis.call('LPUSH', wait_key, unpack(head))",
                "redis.call('RPUSH', wait_key, unpack(head))",
            ),
        ),
    ),
    Mutant(
        "a worker wakes itself for what it passed over",
        (("lua/include/claim.lua", "left = #passed_over > 0 and size == 0", "left = false"),),
        tests=("tests/lua/test_last_chance.py::test_a_line_of_nothing_else_wakes_nobody_at_once",),
    ),
    Mutant(
        "progress takes any token",
        (("lua/include/progress.lua", "local prefix = 'active ' .. ARGV[at + 1] .. ' '", "local prefix = 'active '"),),
    ),
    Mutant(
        "release takes any token",
        (("lua/release_jobs.lua", "run.token == ARGV[at + 1]", "run.token ~= ''"),),
    ),
    Mutant(
        "released jobs go to the tail",
        (("lua/release_jobs.lua", "'head')", "'tail')"),),
    ),
    Mutant(
        "sweep does not clear the token",
        (("lua/include/reclaim.lua", "run.token, run.worker = '-', '-'", "run.worker = '-'"),),
        tests=("tests/lua/test_events.py::test_seq_has_no_gaps_over_entries_and_scripts",),
    ),
    Mutant(
        "sweep without the grant after an unwatched while",
        (("lua/sweep_queue.lua", "if may_wait or gap < -lease then", "if false then"),),
    ),
    Mutant(
        "leases that a leap of the clock left with little get nothing",
        (("lua/include/grace.lua", "swept_at > 0 and late == 0 and '(' .. grant or now", "now"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "a longer lease than the sweeper's gets no more than the others",
        (("lua/include/grace.lua", "not is_short and ends <= now + lease * 4 / 3 then", "not is_short then"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "a pause that is short for the sweeper counts for others' leases",
        (("lua/sweep_queue.lua", "is_short and gap > ARGV[8] * LATE", "false"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "a sweeper that always comes a little late takes nothing back",
        (("lua/sweep_queue.lua", " and now - short_at >= lease", ""),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "a short pause does not count for what ended in it alone",
        (("lua/include/grace.lua", "'(' .. now + gap end", "now end"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "sweepers that are always late take nothing back",
        (("lua/sweep_queue.lua", "is_late and late + 1 or 0", "0"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "late sweeps grant what they granted before",
        (("lua/include/grace.lua", "swept_at > 0 and late == 0 and", "swept_at > 0 and"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "a clock that was set back is left alone",
        (("lua/sweep_queue.lua", "if may_wait or gap < -lease then", "if may_wait then"),),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "what was renewed since the clock was set back is moved, too",
        (
            (
                "lua/include/grace.lua",
                "if gap < 0 then first, last = '(' .. swept_at, '(inf' end",
                "if gap < 0 then last = '(inf' end",
            ),
        ),
        ("tests/lua/test_leases.py",),
    ),
    Mutant(
        "stalled jobs come back in reverse",
        (("lua/include/reclaim.lua", "for index = #back, 1, -1 do", "for index = 1, #back do"),),
        tests=("tests/lua/test_last_chance.py",),
    ),
    Mutant(
        "one stall too few",
        (("lua/include/reclaim.lua", "if run.stalls > max_stalls then", "if run.stalls >= max_stalls then"),),
        tests=("tests/lua/test_leases.py::test_too_many_stalls_fail_a_job",),
    ),
    Mutant(
        "seq not advanced",
        (("lua/include/emit.lua", "seq, start, size = seq + n, index + 1, 0", "start, size = index + 1, 0"),),
    ),
    Mutant(
        "a paused queue hands out jobs",
        (("lua/settle_and_claim.lua", "if wanted > 0 and not paused then", "if wanted > 0 then"),),
    ),
    Mutant(
        "delayed jobs are promoted early",
        (("lua/include/promote.lua", "'(' .. (now + 1), 'LIMIT'", "'+inf', 'LIMIT'"),),
    ),
    # -- managing
    Mutant(
        "clean of finished jobs ignores the cutoff",
        (("lua/clean_jobs.lua", "'-inf', cutoff, 'LIMIT', 0, most)", "'-inf', now, 'LIMIT', 0, most)"),),
    ),
    Mutant(
        "clean leaves the timer of a job with an age of its own",
        (("lua/clean_jobs.lua", "  if #gone > 0 then redis.call('ZREM', timers_key, unpack(timers)) end\n", ""),),
        tests=("tests/lua/test_clean.py::test_a_job_of_its_own_age_takes_its_timer_along",),
    ),
    Mutant(
        "clean of the line ignores the cutoff",
        (("lua/include/clean_line.lua", "if from and from > cutoff then", "if from and from > now then"),),
    ),
    Mutant(
        "clean pops an entry whose job stays",
        (("lua/include/clean_line.lua", "      is_prefix = false\n", ""),),
    ),
    Mutant(
        "clean does not count the holes it leaves",
        (
            (
                "lua/include/clean_line.lua",
                "if #gone ~= popped then add_to(meta_key, 'holes', #gone - popped) end\n",
                "",
            ),
        ),
    ),
    Mutant(
        "an own id that was added again ends a walk of the line",
        (("lua/include/clean_line.lua", "in_order = not meta[5] or meta[5] == '0'", "in_order = true"),),
        tests=("tests/lua/test_clean.py::test_an_own_id_that_was_added_again_hides_nothing",),
    ),
    Mutant(
        "a walk of a set passes over one after each slice",
        (("lua/include/clean_set.lua", "redis.call('ZRANK', key, kept) + 1", "redis.call('ZRANK', key, kept) + 2"),),
        tests=("tests/lua/test_clean.py::test_a_walk_goes_on_right_after_what_it_left",),
    ),
    Mutant(
        "a walk of a set passes over one when the last that stayed has left",
        (("lua/include/clean_set.lua", "'-inf', '(' .. score) end", "'-inf', '(' .. score) + 1 end"),),
        tests=("tests/lua/test_clean.py::test_a_walk_goes_on_although_what_it_left_is_gone",),
    ),
    Mutant(
        "clean takes running jobs whose lease goes on",
        (("lua/include/clean_leases.lua", "math.min(cutoff, now)", "now + 60000"),),
    ),
    Mutant(
        "clean of running jobs does not say that they stalled",
        (("lua/include/clean_leases.lua", "emit('stalled', stalled)\n", ""),),
    ),
    Mutant(
        "a promoted job stays delayed",
        (("lua/include/promote.lua", "  redis.call('ZREM', delayed_key, unpack(ids))\n", ""),),
    ),
    Mutant(
        "a promoted job counts as ready since it was due",
        (("lua/promote_jobs.lua", "into_line(chosen, now_text)", "into_line(chosen)"),),
    ),
    Mutant(
        "change_priority does not count the hole it leaves",
        (
            (
                "lua/change_priority.lua",
                "if previous == 'waiting' then add_to(meta_key, 'holes', 1) else",
                "if previous ~= 'waiting' then",
            ),
        ),
    ),
    Mutant(
        "change_priority of a running job keeps its old place",
        (("lua/change_priority.lua", "run.state, run.place = state, place", "run.state = state"),),
    ),
    Mutant(
        "lifo among equals stands second",
        (("lua/include/first_place.lua", "tonumber(first) - 1", "tonumber(first) + 1"),),
    ),
    Mutant(
        "change_delay tells nobody of a job due before all others",
        (("lua/change_delay.lua", "  local soonest = due\n", "  local soonest = due + 1e15\n"),),
        tests=("tests/lua/test_manage.py::test_a_delay_that_is_now_the_shortest_wakes_whoever_sleeps_longer",),
    ),
    Mutant(
        "update_data leaves the flag of data kept apart",
        (("lua/update_data.lua", "flags = string.gsub(flags, 'd', '') ..", "flags = flags .."),),
    ),
    Mutant(
        "update_data takes any token",
        (("lua/update_data.lua", "is_held(id, ARGV[4], record)", "is_held(id, '', record)"),),
        tests=("tests/lua/test_stale_tokens.py::test_a_stale_token_is_refused_and_changes_nothing",),
    ),
    Mutant(
        "add_log takes any token",
        (("lua/add_log.lua", "is_held(id, ARGV[4], '')", "is_held(id, '', '')"),),
        tests=("tests/lua/test_stale_tokens.py::test_a_stale_token_is_refused_and_changes_nothing",),
    ),
    Mutant(
        "a log keeps every line that fits",
        (("lua/add_log.lua", "while kept > tonumber(ARGV[6]) or #lines", "while #lines"),),
        tests=("tests/lua/test_manage.py::test_a_log_is_kept_within_its_lines",),
    ),
    Mutant(
        "postpone charges an attempt",
        (("lua/include/postpone.lua", "' ' .. fails .. ' '", "' ' .. (fails + 1) .. ' '"),),
    ),
    Mutant(
        "a retried job stands before what was due",
        (("lua/include/settle.lua", "      came_back = promote(100)\n", "      came_back = 0\n"),),
        tests=("tests/lua/test_settle.py::test_a_job_that_is_retried_stands_behind_what_was_due_before",),
    ),
    Mutant(
        "obliterate leaves a column",
        (("lua/obliterate_queue.lua", "for index = 9, 28 do", "for index = 10, 28 do"),),
    ),
    Mutant(
        "obliterate takes whatever queue there is",
        (
            (
                "lua/obliterate_queue.lua",
                "if redis.call('HGET', meta_key, 'epoch') ~= ARGV[3] then return {'OK', 'other', 0} end\n",
                "",
            ),
        ),
    ),
    Mutant(
        "obliterate takes a queue at work",
        (("lua/obliterate_queue.lua", "if running > 0 and ARGV[4] ~= '1' then", "if running < 0 then"),),
    ),
    Mutant(
        "repair does not look again where a job stands",
        (("lua/repair_jobs.lua", "  if MENDED[letter] then\n", "  if records[index] and own and own > 0 then\n"),),
        tests=(f"{REPAIR}::test_what_is_right_by_now_is_left",),
    ),
    Mutant(
        "repair takes jobs from workers that hold them",
        (
            (
                "lua/include/standing.lua",
                "  if not scores[own][index] then return own == 3",
                "  if own == 3 or not scores[own][index] then return own == 3",
            ),
        ),
        tests=(f"{REPAIR}::test_what_is_right_by_now_is_left",),
    ),
    Mutant(
        "repair takes a running job's rest away",
        (("lua/include/standing.lua", "return lease and tonumber(lease) > now and 'l' or 'a', run, 3", "return 'o', run, 3"),),
        tests=(f"{REPAIR}::test_a_run_without_its_job_is_left_to_end",),
    ),
    Mutant(
        "repair takes a lost run for a new job",
        (("lua/include/standing.lua", "      if moved then return 'r', nil, moved end\n", ""),),
        tests=(f"{REPAIR}::test_every_run_deleted",),
        quick=True,
    ),
    Mutant(
        "repair puts a job in line that has moved since",
        (("lua/repair_line.lua", "is_waiting and run == ARGV[4 + index * 2] and not", "is_waiting and not"),),
        tests=(f"{REPAIR}::test_a_job_that_has_moved_since_is_not_put_in_line",),
    ),
    Mutant(
        "repair puts a job in line that stands there",
        (("lua/repair_line.lua", " and not standing[id] and 'p'", " and 'p'"),),
        tests=(f"{REPAIR}::test_what_is_right_by_now_is_left",),
    ),
    Mutant(
        "repair counts holes where not all is right",
        (("lua/repair_line.lua", "if ARGV[3] ~= '1' then holes = said elseif", "if"),),
        tests=(f"{REPAIR}::test_a_run_without_its_job_is_left_to_end",),
    ),
    Mutant(
        "repair counts the member of leases that is no job",
        (("lua/include/holes.lua", " + (redis.call('ZSCORE', leases_key, NO_LEASE) and 1 or 0)", ""),),
    ),
    Mutant(
        "repair forgets a reader that is held",
        (("lua/repair_upkeep.lua", "math.max(tonumber(held), tonumber(saved)) + away", "tonumber(saved) + away"),),
        tests=(f"{REPAIR}::test_readers_are_forgotten_by_age_only",),
    ),
    Mutant(
        "repair forgets a reader of the last day",
        (("lua/repair_upkeep.lua", "math.max(tonumber(ARGV[4]), LIVE_MS)", "tonumber(ARGV[4])"),),
        tests=(f"{REPAIR}::test_readers_are_forgotten_by_age_only",),
    ),
    # -- the worker and its client
    Mutant(
        "runner takes a new number when it repeats a call",
        (
            (
                "client/runner.py",
                "words, command.script.text, error, began=began)",
                "command.words(self._writer, self._number + 1), command.script.text, error, began=began)",
            ),
        ),
        tests=("tests/integration/test_connections.py::test_lost_answers_are_asked_for_again",),
    ),
    # -- durability
    Mutant(
        "what is confirmed is not counted",
        (("commands/confirm.py", "if copies >= COPIES:", "if copies >= 0:"),),
        tests=(f"{DURABILITY}::test_without_a_copy_in_time_it_is_stored_and_unconfirmed",),
    ),
    Mutant(
        "a repeated add writes nothing",
        (("lua/add_jobs.lua", "  redis.call('HSET', calls_key, writer, call_record)\n", ""),),
        tests=(f"{NUMBERED}::test_a_repeated_add_writes_so_that_it_can_be_confirmed",),
        quick=True,
    ),
    Mutant(
        "a repeated add writes nothing, as a server with WAIT sees it",
        (("lua/add_jobs.lua", "  redis.call('HSET', calls_key, writer, call_record)\n", ""),),
        tests=(f"{DURABILITY}::test_a_repeated_call_is_not_confirmed_by_a_connection_that_wrote_nothing",),
    ),
    Mutant(
        "another connection is asked to confirm",
        (
            (
                "client/confirming.py",
                "            return await super()._exchange(connection, confirmation.words, self._timeout + confirmation.seconds)",
                "            from eventq.client.opening import open_async\n"
                "            other = await open_async(self._server, 'other', self._node)\n"
                "            self._connection = other\n"
                "            try:\n"
                "                return await super()._exchange(other, confirmation.words, self._timeout + confirmation.seconds)\n"
                "            finally:\n"
                "                await other.disconnect(nowait=True)\n"
                "                self._connection = connection",
            ),
        ),
        tests=(f"{DURABILITY}::test_a_repeated_call_is_not_confirmed_by_a_connection_that_wrote_nothing",),
    ),
    Mutant(
        "a refusal to confirm counts as a copy",
        (("commands/confirm.py", "cause, copies, how = answer, 0, f", "cause, copies, how = answer, COPIES, f"),),
        tests=(f"{DURABILITY}::test_a_server_that_stops_to_write_to_disk_confirms_nothing",),
    ),
    Mutant(
        "an append-only file counts, however it is written",
        (("operations/confirming.py", 'if policy == "always" or (', "if policy or ("),),
        tests=(f"{DURABILITY}::test_a_server_that_cannot_confirm_a_disk_is_told_at_once",),
    ),
    Mutant(
        "only the first connection is examined",
        (
            (
                "client/confirming.py",
                "                await self._examine(connection)\n",
                "                if not self._examined:\n                    await self._examine(connection)\n",
            ),
        ),
        tests=(f"{DURABILITY}::test_every_connection_is_examined_before_it_adds",),
    ),
    # -- the worker
    Mutant(
        "worker tells refused outcomes as recorded",
        (("runs.py", "            if index in stale:\n", "            if index in ():\n"),),
        tests=("tests/model/test_worker.py::test_a_refused_outcome_is_told_as_a_lost_lease",),
        quick=True,
    ),
    Mutant(
        "heartbeat does not tell lost tokens",
        (("heartbeat.py", "            if gone:\n", "            if gone and not gone:\n"),),
        tests=("tests/model/test_worker.py::test_a_run_whose_lease_is_gone_is_cancelled",),
    ),
    Mutant(
        "a run past its deadline goes on",
        (("fence.py", "            self._expired(overdue)\n", "            self._ask()\n"),),
        tests=("tests/integration/test_recovery.py::test_a_pause_of_the_server_is_no_reason_to_reclaim_everything",),
    ),
    Mutant(
        "lane starts jobs that were taken away",
        (("commands/work.py", "        if record:\n", "        if record is not None:\n"),),
        tests=(f"{NUMBERED}::test_a_replayed_claim_leaves_out_what_was_taken_away",),
    ),
    Mutant(
        "worker starts jobs that arrive after a pause",
        (("worker.py", "        if not self._lanes.claiming:\n", "        if not self._lanes:\n"),),
        tests=("tests/integration/test_shutdown.py::test_jobs_that_arrive_after_a_pause_go_back_in_order",),
    ),
    # -- signatures
    Mutant(
        "no signature is compared",
        (("signing.py", "        if not hmac.compare_digest(mac.hexdigest(), said):\n", "        if not said:\n"),),
        tests=(f"{SIGNED}::test_no_altered_byte_runs",),
    ),
    Mutant(
        "a signature does not cover the id",
        (
            (
                "signing.py",
                "        mac.update(_framed(job_id, name, spec, data))\n",
                "        mac.update(_framed(name, spec, data))\n",
            ),
            (
                "signing.py",
                "        mac.update(_framed(owner, *parts, body))\n",
                "        mac.update(_framed(*parts or [owner], body))\n",
            ),
        ),
        tests=(f"{SIGNED}::test_a_job_does_not_run_under_another_id",),
    ),
    Mutant(
        "a signature does not cover the options",
        (
            (
                "signing.py",
                "        mac.update(_framed(job_id, name, spec, data))\n",
                "        mac.update(_framed(job_id, name, data))\n",
            ),
            ("signing.py", "(record.name, record.spec_text), record.data", "(record.name,), record.data"),
        ),
        tests=(f"{SIGNED}::test_a_job_does_not_run_under_another_id",),
    ),
    Mutant(
        "a signature does not cover the queue",
        (("signing.py", 'keys.keyed("job", prefix, queue)', 'keys.keyed("job", prefix)'),),
        tests=(f"{SIGNED}::test_a_job_of_another_queue_does_not_run_here",),
    ),
    Mutant(
        "a signature's parts have no lengths before them",
        (("signing.py", '[f"{len(part)}:{part}" for part in parts]', "parts"),),
        tests=("tests/unit/test_signing.py::test_parts_cannot_be_shifted",),
    ),
    Mutant(
        "a job without a signature runs in a signed queue",
        (
            (
                "runs.py",
                "record.data if self._signer is None else self._signer.open_job(claimed.id, record)",
                'record.data if self._signer is None or record.data[:1] != "~" else self._signer.open_job(claimed.id, record)',
            ),
        ),
        tests=(f"{SIGNED}::test_unsigned_jobs_do_not_run",),
    ),
    Mutant(
        "a job whose signature is not good has its options obeyed",
        (
            (
                "runs.py",
                "            running.record = msgspec.structs.replace(running.record, spec=Spec())\n",
                "            pass\n",
            ),
        ),
        tests=(f"{SIGNED}::test_an_unsigned_job_cannot_ask_to_be_forgotten",),
    ),
    Mutant(
        "new data gives an altered job a good signature",
        (("context.py", "            self.signer.open_job(job_id, record)\n", ""),),
        tests=(f"{SIGNED}::test_new_data_for_a_stored_job",),
    ),
    Mutant(
        "a schedule is fired unverified",
        (("firing.py", "            self._signer.open_schedule(schedule.id, schedule.text)\n", "            pass\n"),),
        tests=(f"{SIGNED}::test_a_forged_schedule_does_not_fire",),
    ),
    Mutant(
        "what stands of a forged schedule is signed",
        (
            (
                "operations/scheduling.py",
                "    except BadSignature:\n        return None\n",
                "    except BadSignature:\n        pass\n",
            ),
        ),
        tests=(f"{SIGNED}::test_a_schedule_is_signed_anew",),
    ),
)
