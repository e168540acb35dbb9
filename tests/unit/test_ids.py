"""Ids: 20 characters of [0-9a-z] that sort as they were made."""

from __future__ import annotations

import os
import re
import sys
import threading
import time

import pytest

from eventq import ids
from eventq.ids import IdSource, new_id, random_text
from eventq.keys import check_job_id


def test_an_id_is_twenty_plain_characters() -> None:
    """The alphabet needs no escaping anywhere, and an id of ours could be an own id."""
    made = new_id()
    assert re.fullmatch(r"[0-9a-z]{20}", made)
    assert made == check_job_id(made)


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    """Time first, then a counter: 100,000 ids in a row rise, none twice."""
    source = IdSource()
    made = [source() for _ in range(100_000)]
    assert sorted(set(made)) == made


def test_a_clock_that_steps_back_does_not_step_ids_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last millisecond goes on counting until the clock has caught up."""
    source = IdSource()
    now = 1_700_000_000_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: now)
    first = source()
    now -= 60 * 10**9
    second = source()
    now += 61 * 10**9
    third = source()
    assert first < second < third


def test_a_full_millisecond_borrows_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """More ids than one millisecond counts are still unique and rising."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    monkeypatch.setattr(ids, "_FOURS", 5)
    source = IdSource()
    made = [source() for _ in range(23)]
    assert sorted(set(made)) == made
    assert 5 == len({one[:9] for one in made})


def test_sources_do_not_share_their_random_tail() -> None:
    """Two processes in the same millisecond differ by seven random characters."""
    assert 100 == len({IdSource()()[-7:] for _ in range(100)})


def test_a_forked_child_draws_a_tail_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another process the next millisecond's ids end differently, and a lock that was held at the fork does not matter."""
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    source = IdSource()
    before = source()
    pid = os.getpid()
    source._lock.acquire()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_001_000_000)
    after = source()
    assert before[:13] < after[:13]
    assert before[13:] != after[13:]


def test_threads_share_a_source_without_making_an_id_twice() -> None:
    """Ids made in eight threads at once are all different, however they take turns."""
    source = IdSource()
    made: list[list[str]] = [[] for _ in range(8)]

    def make(into: list[str]) -> None:
        into.extend(source() for _ in range(4_000))

    threads = [threading.Thread(target=make, args=(each,)) for each in made]
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(usual)
    assert 32_000 == len({one for each in made for one in each})


@pytest.mark.parametrize("length", [4, 7, 12])
def test_random_text_has_its_length(length: int) -> None:
    """Writers, holders and names get as many characters as they ask for."""
    assert re.fullmatch(rf"[0-9a-z]{{{length}}}", random_text(length))
