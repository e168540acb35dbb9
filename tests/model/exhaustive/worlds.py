"""The worlds that are explored: small ones with every run of the suite, large ones with `make test-full`."""

from __future__ import annotations

from typing import Final

from .world import Faults, World

_ALONE: Final = World("one worker, one job, a lost message", Faults(losses=1), workers=1, jobs=1)
_RUDE: Final = World("one worker that names a run twice in a batch", Faults(), workers=1, jobs=1, rude=True)
_LATE: Final = World("two lost messages, one late", Faults(losses=2, delays=1), workers=1, jobs=1)
_SLOW: Final = World("a lost message, two late, a short lease", Faults(losses=1, delays=2), workers=1, jobs=1)
_THIRDS: Final = World("a lost message, two late", Faults(losses=1, delays=2), workers=1, jobs=1, lease=3)
_ERRORS: Final = World("a job that fails again and again", Faults(errors=3), workers=1, jobs=1)
_FROZEN: Final = World("two workers, one job, one is frozen", Faults(freezes=1), jobs=1)
#: Once: a server that stands still again before the two thirds of a lease that its first sweep granted is over does take jobs back.
_QUIET: Final = World(
    "nobody is at fault: a server that stands still, a lane that is slow, a worker that closes",
    Faults(losses=1, closes=1, pauses=1),
    workers=1,
    jobs=1,
    lease=3,
    quiet=True,
)
_FAILOVER: Final = World("a failover that loses writes", Faults(losses=1, failovers=1), workers=1, jobs=1)
#: Too large for every run; a guard whose absence shows early is looked for in it all the same.
_FROZEN_AND_LOST: Final = World("two workers, one job: a freeze, a lost message", Faults(freezes=1, losses=1), jobs=1)

SMALL: Final = (_ALONE, _RUDE, _LATE, _SLOW, _THIRDS, _ERRORS, _FROZEN, _QUIET, _FAILOVER)
LARGE: Final = (
    _FROZEN_AND_LOST,
    World("two workers, two jobs: nothing goes wrong", Faults()),
    World("two workers, two jobs: a lost message", Faults(losses=1)),
    World("two workers, two jobs: a kill", Faults(kills=1)),
    World("two workers, two jobs: a freeze", Faults(freezes=1)),
    World("two workers, two jobs: errors", Faults(errors=4)),
    World("one worker of two slots, two jobs: a lost message", Faults(losses=1), workers=1, slots=2),
    World("two workers, one job: two kills", Faults(kills=2), jobs=1),
    World("two workers, one job: a kill, a freeze", Faults(kills=1, freezes=1), jobs=1),
    World("two workers, one job: a lost message, one late", Faults(losses=1, delays=1), jobs=1),
    World("two workers, one job: a failover, a lost message", Faults(losses=1, failovers=1), jobs=1),
    World("one worker, two jobs: a failover", Faults(failovers=1), workers=1),
    World("nobody is at fault, two workers, one job", Faults(closes=1, pauses=1, errors=1), jobs=1, lease=3, quiet=True),
)
#: Guard -> the smallest world in which its absence breaks a promise.
FOUND_IN: Final = {
    "settle: token": _FROZEN,
    "settle: once in a batch": _RUDE,
    "settle: lease ends": _ALONE,
    "renew: token": _ALONE,
    "renew: no resurrection": _ALONE,
    "release: token": _ALONE,
    "release: counted": _ALONE,
    "sweep: deadline": _ALONE,
    "sweep: counted": _LATE,
    "sweep: leaves the lease set": _LATE,
    "sweep: max_stalls": _FROZEN,
    "sweep: grace": _QUIET,
    "call: replay": _ALONE,
    "call: lower refused": _LATE,
    "replay: taken away left out": _FROZEN_AND_LOST,
    "worker: same number": _ALONE,
    "worker: fence": _LATE,
    "worker: margin": _LATE,
    "worker: claim counts from sending": _SLOW,
    "worker: renewal counts from sending": _THIRDS,
    "worker: replayed claim is old": _SLOW,
    "worker: late claim given back": _FROZEN,
    "worker: settling is renewed": _QUIET,
    "worker: verdict decides": _ALONE,
    "worker: settling is not released": _QUIET,
    "worker: ended before released": _ALONE,
    "worker: closing starts nothing": _QUIET,
    "worker: attempts": _ERRORS,
}
