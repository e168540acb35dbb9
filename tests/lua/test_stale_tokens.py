"""Whatever a worker writes carries the token of its run. A token that is no longer the job's is refused, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from eventq import scripts
from eventq.commands.manage import add_log, remove_jobs, update_data
from eventq.commands.work import Claimed, release_jobs, renew_leases

from .lab import LEASE_MS, Lab, held, new, outcome, progress

JOB = "the-job"


def _swept(lab: Lab, _: Claimed) -> None:
    lab.expire_leases()
    lab.sweep()


def _swept_and_claimed(lab: Lab, job: Claimed) -> None:
    _swept(lab, job)
    lab.claim(writer="another")


def _swept_and_failed(lab: Lab, _: Claimed) -> None:
    lab.expire_leases()
    lab.sweep(max_stalls=0)


def _released_and_claimed(lab: Lab, job: Claimed) -> None:
    lab.call(release_jobs(lab.keys, [held(job)]), "another")
    lab.claim(writer="another")


def _completed(lab: Lab, job: Claimed) -> None:
    lab.settle(outcome(job, result='"by the first"'))


def _retried_and_claimed(lab: Lab, job: Claimed) -> None:
    lab.settle(outcome(job, "retry"))
    lab.claim(writer="another")


def _added_again(lab: Lab, job: Claimed) -> None:
    lab.settle(outcome(job))
    lab.call(remove_jobs(lab.keys, [JOB]))
    lab.add(new(job_id=JOB))
    lab.claim(writer="another")


def _removed(lab: Lab, job: Claimed) -> None:
    lab.settle(outcome(job, extra="0"))


BECAME_STALE = [
    _swept,
    _swept_and_claimed,
    _swept_and_failed,
    _released_and_claimed,
    _completed,
    _retried_and_claimed,
    _added_again,
    _removed,
]


def _settles(lab: Lab, job: Claimed) -> None:
    for word in ("completed", "failed", "exhausted", "retry", "postpone"):
        assert [0] == lab.settle(outcome(job, word, result='"stale"' if word == "completed" else ""))


def _reports_progress(lab: Lab, job: Claimed) -> None:
    lab.claim(0, progress=[progress(job, "99")])


def _renews(lab: Lab, job: Claimed) -> None:
    assert [0] == lab.call(renew_leases(lab.keys, LEASE_MS * 10, [held(job)]))


def _releases(lab: Lab, job: Claimed) -> None:
    assert 0 == lab.call(release_jobs(lab.keys, [held(job)]))


def _updates_data(lab: Lab, job: Claimed) -> None:
    assert lab.call(update_data(lab.keys, job.id, job.token, '"stale"')) in ("s", "m")


def _logs(lab: Lab, job: Claimed) -> None:
    assert lab.call(add_log(lab.keys, job.id, job.token, '"stale"')) in ("s", "m")


#: Every script whose arguments hold tokens, and all that can be written with one.
WRITES: dict[str, list[Callable[[Lab, Claimed], None]]] = {
    "settle_and_claim": [_settles, _reports_progress],
    "renew_leases": [_renews],
    "release_jobs": [_releases],
    "update_data": [_updates_data],
    "add_log": [_logs],
}


def test_every_script_that_takes_a_token_is_here() -> None:
    """A new one has to say here how a stale token is offered to it."""
    takers = {name for name in scripts.script_names() if "token" in _arguments(scripts.load_script(name).text)}
    assert takers == WRITES.keys()


def _arguments(text: str) -> str:
    """Return what a script's header says of its arguments."""
    return text.partition("-- ARGV:")[2].partition("-- Reply:")[0]


@pytest.mark.parametrize("write", [write for writes in WRITES.values() for write in writes], ids=lambda write: write.__name__)
@pytest.mark.parametrize("became_stale", BECAME_STALE, ids=lambda how: how.__name__)
def test_a_stale_token_is_refused_and_changes_nothing(
    lab: Lab, became_stale: Callable[[Lab, Claimed], None], write: Callable[[Lab, Claimed], None]
) -> None:
    """However the run ended, none of its writes is taken any more."""
    lab.add(new(job_id=JOB))
    (job,) = lab.claim().jobs
    became_stale(lab, job)
    before = _stored(lab)
    write(lab, job)
    assert before == _stored(lab)


def _stored(lab: Lab) -> dict[str, Any]:
    """Return all that is stored but the records of calls and what wakes workers."""
    return {column: value for column, value in lab.dump().items() if column not in ("calls", "timers", "marker")}
