"""A scheduler process, on the clock that the test moves.

Arguments: queue, url, directory of the ledger (unused), options as JSON: `hesitates` lets it stop itself (SIGSTOP) between reading
what is due and firing it, saying `stops` before; the rest are options of QueueScheduler. Prints `started` once it is about to work.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from tests.moved_clock import let_clocks_move

let_clocks_move()

from eventq import QueueScheduler, firing  # noqa: E402
from eventq.commands.schedules import fire_schedule  # noqa: E402


def stop_and_fire(*plan: Any) -> Any:
    """Fire what was planned before this process stood still, for as long as the test wants it to."""
    print("stops", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return fire_schedule(*plan)


async def main() -> None:
    queue_name, url, _, options_text = sys.argv[1:]
    options = json.loads(options_text)
    if options.pop("hesitates", False):
        setattr(firing, "fire_schedule", stop_and_fire)  # noqa: B010 - a fault put between reading and firing
    print("started", flush=True)
    await QueueScheduler(queue_name, url=url, **options).run()


if __name__ == "__main__":
    asyncio.run(main())
