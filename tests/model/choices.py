"""What the machine chooses from: how jobs are added and kept, how runs end, who is meant."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

from eventq.commands.work import Retention
from eventq.options import Keep
from eventq.states import JobState

from ..lua.lab import LEASE_MS, RULES

#: The last-chance rule of a claim: after how many stalls a job is on it (0: no such rule), whether one may be claimed.
Risk = tuple[int, bool]
#: A run to name: whether a zombie's is meant, and which one.
Pick = tuple[bool, int]

PLACES: list[dict[str, Any]] = [
    {}, {}, {}, {}, {"delay": 5}, {"delay": 60}, {"priority": 1}, {"priority": 2}, {"lifo": True},
    {"delay": 5, "priority": 1}, {"delay": 5, "lifo": True}, {"data": '"' + "x" * 1_100 + '"'},
]  # fmt: skip
KEEPS: list[dict[str, Any]] = [
    {}, {}, {"remove_on_complete": True, "remove_on_fail": True}, {"remove_on_complete": False, "remove_on_fail": False},
    {"remove_on_complete": 1, "remove_on_fail": 2}, {"remove_on_complete": Keep(age=30), "remove_on_fail": Keep(age=5)},
    {"remove_on_complete": Keep(count=2, age=30), "remove_on_fail": Keep(count=1, age=5)},
]  # fmt: skip
#: Jobs that are added in time for their worker to be lost, by place and own id: often none.
Lost = list[tuple[dict[str, Any], str | None]]
_LOST: Lost = [
    ({}, None), ({}, None), ({}, "own-1"), ({"lifo": True}, "own-2"), ({"priority": 1}, None),
]  # fmt: skip
LOST: st.SearchStrategy[Lost] = st.just([]) | st.lists(st.sampled_from(_LOST), min_size=2, max_size=4)
#: What happens to the line besides: nothing, a job in it is removed, a job stands in it twice.
GAPS = st.sampled_from(["", "", "hole", "hole", "twice"])
#: Rules of the queue: the usual ones, tight ones, age on one side and nothing on the other.
RETENTIONS = [RULES, Retention((3, 60_000), (1, -1)), Retention((-1, 20_000), (-1, -1))]
#: word, extra of a retry, result.
ENDS: list[tuple[str, int, str]] = [
    ("completed", 0, ""), ("completed", 0, '"done"'), ("completed", 0, "1"), ("completed", 0, "null"),
    ("failed", 0, ""), ("exhausted", 0, ""), ("retry", 0, ""), ("retry", 5_000, ""),
    ("postpone", 5_000, ""), ("postpone", 60_000, ""),
]  # fmt: skip

WRITERS = st.integers(0, 2)
RUNS = st.tuples(st.sampled_from([False, False, False, True]), st.integers(0, 20))
JOBS = st.lists(st.integers(0, 30), min_size=1, max_size=4)
LEASES = st.sampled_from([LEASE_MS, LEASE_MS // 3])
STALLS = st.sampled_from([0, 1, 2, 2])
RISKS: st.SearchStrategy[Risk] = st.sampled_from([(0, True), (1, True), (1, True), (1, False), (2, True), (2, False)])
#: Who says something of a job: whether with the token of a run, and which.
Sayer = tuple[bool, Pick]
SAYERS: st.SearchStrategy[Sayer] = st.tuples(st.sampled_from([True, True, False]), RUNS)
DELAYS = st.sampled_from([5_000, 60_000, 0, -1_000, 3_600_000])
DATA = st.sampled_from(["2", '"small"', '"' + "y" * 1_100 + '"'])
LINES = st.sampled_from(['"a"', '"line"', '"' + "z" * 20 + '"', '"' + "z" * 70 + '"'])
#: Lines and bytes that are kept of a log here.
LOG_KEPT = (2, 60)
#: Where jobs go that come before those in line already.
LINE_UP: list[dict[str, Any]] = [{"lifo": True}, {"priority": 1}]
YOUNG = [*LINE_UP, {"delay": 60}]
_SETS = (JobState.PRIORITIZED, JobState.DELAYED)
CLEANABLE = st.sampled_from([*_SETS, *[state for state in JobState if state is not JobState.WAITING_CHILDREN]])
GRACES = st.sampled_from([5, 3_600, 0])
LIMITS = st.sampled_from([None, None, None, 1, 4])
#: What others do before a walk, and between its calls.
_OTHERS = st.sampled_from(
    ["claim", "release", "add", "promote", "remove", "raise", "lower", "settle", "again", "time", "forget", "forget", "forget"]
)
BEFORE = st.lists(_OTHERS, max_size=2)
MEANWHILE = st.lists(_OTHERS, max_size=3)
SOME_RUNS = st.lists(RUNS, min_size=1, max_size=4)
