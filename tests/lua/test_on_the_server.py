"""The scripts as they ship, as a server takes them: their text loads, their flags do what they are for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from eventq import scripts
from eventq.commands.add import add_jobs
from eventq.commands.core import Command
from eventq.commands.manage import remove_jobs
from eventq.commands.read import count_jobs, get_jobs, list_jobs
from eventq.commands.work import release_jobs, renew_leases
from eventq.keys import QueueKeys
from eventq.states import JobState

from .lab import LEASE_MS, Lab, held, new, outcome


def test_every_script_loads_as_it_ships(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text without the tests' clock is valid Lua with a header the server knows, and Redis takes the same digest of it."""
    monkeypatch.setattr(scripts, "_replaced", {})
    for name in scripts.script_names():
        script = scripts.load_script.__wrapped__(name)
        assert "clock_offset" not in script.text
        assert lab.redis("SCRIPT", "LOAD", script.text) == script.sha


def test_reading_needs_no_right_to_write(lab: Lab) -> None:
    """Every reading script runs where only reading is allowed, as on a replica."""
    lab.add(new())
    commands: list[Command[Any]] = [
        count_jobs(lab.keys),
        get_jobs(lab.keys, ["a"]),
        list_jobs(lab.keys, JobState.WAITING, 0, 10, newest_first=True),
    ]
    for command in commands:
        lab.call(command)
        words = command.words("", 0)
        assert lab.redis("EVALSHA_RO", *words[1:])[0] == "OK"


def test_a_full_server_still_frees_and_settles(lab: Lab, make_server: Callable[..., Any]) -> None:
    """Out of memory, adding is refused without effect, while running jobs are renewed, given back, recorded and removed."""
    full = make_server()
    own = Lab(full.url, "full", lab.clock)
    try:
        own.add(*[new(data="1" * 500) for _ in range(10)])
        first, second, third = own.claim(3).jobs
        own.redis("CONFIG", "SET", "maxmemory", "1")
        before = own.dump()
        with pytest.raises(OutOfMemoryError):
            own.send(add_jobs(own.keys, [new()]))
        assert own.dump() == before

        assert own.call(renew_leases(own.keys, LEASE_MS, [held(first), held(second), held(third)])) == []
        assert own.call(release_jobs(own.keys, [held(third)])) == 1
        reply = own.claim(1, outcomes=[outcome(first, result='"x"'), outcome(second, "failed")])
        assert (reply.stale, len(reply.jobs)) == ([], 1)
        assert own.call(remove_jobs(own.keys, [first.id, second.id])) == "dd"
        assert own.counts() == {"waiting": 7, "active": 1}
    finally:
        own.close()


def test_queues_do_not_touch_one_another(lab: Lab) -> None:
    """A call changes keys of its own queue only, also in a queue that shares the slot."""
    lab.add(new(job_id="mine"))
    before = lab.dump()
    mine, lab.keys = lab.keys, QueueKeys(f"{lab.keys.name}-other", tag=lab.keys.tag)
    lab.add(new(job_id="mine"), new())
    lab.settle(*[outcome(job) for job in lab.claim(2).jobs])
    assert lab.counts() == {"completed": 2}
    lab.keys = mine
    assert lab.dump() == before
