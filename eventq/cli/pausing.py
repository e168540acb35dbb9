"""`eventq pause` and `eventq resume`."""

from __future__ import annotations

from eventq.cli.opening import Place, open_queue
from eventq.cli.runtime import run_async
from eventq.cli.tables import print_json

__all__ = ["set_paused"]


def set_paused(queue_name: str, place: Place, *, paused: bool, as_json: bool) -> None:
    """Pause or resume a queue. Doing it twice is no mistake."""

    async def main() -> None:
        async with open_queue(queue_name, place) as queue:
            await (queue.pause() if paused else queue.resume())

    run_async(main)
    if as_json:
        print_json({"queue": queue_name, "paused": paused})
    else:
        print(f"queue {queue_name} is {'paused: running jobs finish, no other begins' if paused else 'running'}")
