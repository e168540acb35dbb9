"""A reader process: reads the queue's events under a name, for ever, and writes down each one and each loss it is told of.

Arguments: queue, url, directory of the ledger, options as JSON: consumer. Prints `started` once nothing is missed any more.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from eventq import Queue
from tests.chaos.ledger import Ledger


async def main() -> None:
    queue_name, url, directory, text = sys.argv[1:]
    consumer = json.loads(text)["consumer"]
    ledger = Ledger(Path(directory))
    async with Queue(queue_name, url=url) as queue, queue.events(consumer=consumer) as events:
        print("started", flush=True)
        async for event in events:
            ledger.seen(consumer, event)


if __name__ == "__main__":
    asyncio.run(main())
