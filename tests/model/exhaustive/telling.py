"""Steps in English."""

from __future__ import annotations

from typing import Any, Final

from .world import Beat, Claim, Outcome, Reply, Request

_WORDS: Final = {"c": "completed", "r": "to be tried again", "f": "failed"}
_TEXTS: Final = {
    "execute": "the server executes the call of worker {0}",
    "stray": "the server executes a copy of the call of worker {0} from a dead connection",
    "old": "the server executes a request of worker {0} that is {1} calls old",
    "renew": "the server executes the renewal of worker {0}",
    "old renew": "the server executes a renewal that worker {0} gave up",
    "release": "the server executes the release of worker {0}",
    "release unanswered": "the server executes the release of worker {0}; the answer is lost",
    "orphan": "the server executes a request of a worker that is gone: {1}",
    "sweep": "a sweep {0}",
    "tick": "time passes",
    "late tick": "time passes, and what is on its way is late",
    "call": "worker {0} calls: outcomes {1}, wants {2}",
    "answer": "worker {0} gets its answer: {1}",
    "complete": "the run of job {1} in worker {0} completes",
    "error": "the run of job {1} in worker {0} raises",
    "fence": "worker {0} cancels job {1}: not confirmed in time",
    "end of grace": "worker {0} cancels and gives back what it still runs",
    "end": "the cancelled run of job {1} in worker {0} ends",
    "release over its head": "worker {0} gives back job {1}, whose outcome is on its way",
    "beat": "worker {0} sends a renewal: {1}",
    "beat given up": "worker {0} gives up a renewal and sends a new one: {1}",
    "renewed": "worker {0} gets the answer of its renewal: lost {1}",
    "repeat": "worker {0} hears nothing and repeats its call",
    "repeat beat": "worker {0} hears nothing and repeats its renewal",
    "leave": "worker {0} has closed; another one starts in its place",
    "close": "worker {0} begins to close",
    "kill": "worker {0} is killed; another one starts in its place",
    "freeze": "worker {0} is frozen",
    "wake": "worker {0} wakes",
    "pause": "the server stands still",
    "resume": "the server goes on",
    "replicate": "a replica has everything up to here",
    "failover": "the replica takes over: what came after is gone",
}


def tell(what: tuple[Any, ...]) -> str:
    """Return a step as a sentence."""
    return _TEXTS[what[0]].format(*map(_say, what[1:]))


def _say(value: Any) -> str:
    match value:
        case Outcome(job, token, word):
            text = f"job {job} {_WORDS[word]} (run {token})"
        case Claim(job, token):
            text = f"job {job} (run {token})"
        case Reply(stale, claims):
            text = f"refused {_say(stale)}, jobs {_say(claims)}"
        case Request(_, outcomes, wanted):
            text = f"a call with outcomes {_say(outcomes)} that wants {wanted}"
        case Beat(runs):
            text = f"a renewal of {_say(runs)}"
        case tuple():
            text = "; ".join(map(_say, value)) or "none"
        case _:
            text = str(value)
    return text
