"""Managing a queue: pause, resume, retry, remove."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventq.commands.core import Command, batch_reply
from eventq.scripts import load_script

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.keys import QueueKeys
    from eventq.states import JobState


def pause_queue(keys: QueueKeys) -> Command[bool]:
    """Stop claiming everywhere. Returns whether this call changed it."""
    script = load_script("pause_queue")
    return Command(script, script.keys(keys), (), lambda reply: reply[1] == 1)


def resume_queue(keys: QueueKeys) -> Command[bool]:
    """Let workers claim again. Returns whether this call changed it."""
    script = load_script("resume_queue")
    return Command(script, script.keys(keys), (), lambda reply: reply[1] == 1)


def retry_jobs(keys: QueueKeys, ids: Sequence[str], *, state: JobState, reset_attempts: bool) -> Command[str]:
    """Put at most 500 finished jobs back in line. Returns a letter per job: r retried, s other state, m missing."""
    script = load_script("retry_jobs")
    args = [state.value, "1" if reset_attempts else "0", len(ids), *ids]
    return Command(script, script.keys(keys), args, batch_reply)


def remove_jobs(keys: QueueKeys, ids: Sequence[str]) -> Command[str]:
    """Remove at most 500 jobs that are not running. Returns a letter per job: d removed, a active, m missing."""
    script = load_script("remove_jobs")
    return Command(script, script.keys(keys), [len(ids), *ids], batch_reply)
