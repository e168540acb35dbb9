"""A test process that is killed with processes of its own running.

Arguments: queue, url, directory of the ledger, options (none). Prints the pid of its worker once that works.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.processes import Processes


async def main() -> None:
    queue_name, url, directory, _ = sys.argv[1:]
    with Processes(Ledger(Path(directory)), queue_name, url) as processes:
        worker = await processes.worker()
        print(worker.pid, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
