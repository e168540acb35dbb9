"""What can be wrong with a stored queue, planted for those who look for it and mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from eventq.keys import QueueKeys

if TYPE_CHECKING:
    from eventq import Queue

    from .acl_scenarios import Stage

#: What `eventq doctor --repair` says it did about each.
MENDED: Final = (
    "put 1 job back in their states: stateless",
    "put 1 job back in line: lost",
    "removed what was left of 1 job not stored: nobody",
    "set the timers of 1 record in `calls`: ghost",
    "forgot 1 durable reader: away",
)


async def plants(stage: Stage, queue: Queue[Any, Any]) -> None:
    """A job in no line, one in no state, what is left of one, a record that would stay, a reader nobody runs any more."""
    keys, write = QueueKeys(stage.name), stage.client.hset
    for state, job_id in (("waiting", "lost"), ("delayed", "stateless")):
        model = (await queue.get_jobs(state))[0]
        write(keys["jobs"], job_id, stage.client.hget(keys["jobs"], model.id))
    write(keys["results"], "nobody", "1")
    write(keys["calls"], "ghost", "1 0 ")
    write(keys["consumers"], "away", "me 0 0 epoch 0-1 0 ")
