"""The limit: eventq's own settle-and-claim script from bare sockets, and no work on the jobs in between.

work CONCURRENCY

Two lanes in turn, as a busy worker has: while the server runs the script of one, the other lane is fed here.
What a call claimed is settled as completed by that lane's next one. The server is what limits it, not this loop.
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlsplit

import hiredis

from benchmarks.drivers.common import QUEUE, URL, open_ticks
from eventq.commands.core import Command
from eventq.commands.work import Claimed, ClaimReply, Outcome, Retention, settle_and_claim
from eventq.ids import random_text
from eventq.keys import QueueKeys
from eventq.limits import BATCH_JOBS
from eventq.options import KEEP_COMPLETED, KEEP_FAILED, queue_rule

LANES = 2
LEASE_MS = 15_000
#: eventq's defaults, and what its worker tells of a first run that returned True.
RETENTION = Retention(queue_rule("remove_on_complete", None, KEEP_COMPLETED), queue_rule("remove_on_fail", None, KEEP_FAILED))
FRAGMENT = '"name":"noop","attempt":1,"worker":"raw","result":true'
pack = cast("Any", hiredis.pack_command)


class Lane:
    """One connection and one numbered writer, one call in flight."""

    def __init__(self, keys: QueueKeys, wanted: int) -> None:
        address = urlsplit(URL)
        self._socket = socket.create_connection((address.hostname, address.port or 6379))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader(encoding="utf-8")
        self._keys, self._wanted = keys, wanted
        self._writer, self._number = random_text(20), 0
        self._command = self._call(())
        self.ask(("SCRIPT", "LOAD", self._command.script.text))

    def _call(self, jobs: Sequence[Claimed]) -> Command[ClaimReply]:
        done = [Outcome(job.id, job.token, "completed", FRAGMENT, "true", "") for job in jobs]
        return settle_and_claim(
            self._keys,
            worker="raw",
            lease_ms=LEASE_MS,
            wanted=self._wanted,
            retention=RETENTION,
            progress=(),
            outcomes=done,
        )

    def send(self, jobs: Sequence[Claimed]) -> None:
        """Settle these jobs and ask for more."""
        self._command = self._call(jobs)
        self._number += 1
        self._socket.sendall(pack(tuple(self._command.words(self._writer, self._number))))

    def receive(self) -> ClaimReply:
        """The reply of the call in flight."""
        reply = self._command.read(cast("list[Any]", self._reply()))
        if reply.stale:
            raise SystemExit("Error: outcomes were refused, so nothing here is the limit of anything")
        return reply

    def ask(self, words: tuple[str, ...]) -> object:
        """Send a plain command and wait for its reply."""
        self._socket.sendall(pack(words))
        return self._reply()

    def _reply(self) -> object:
        while (reply := self._reader.gets()) is False:
            received = self._socket.recv(1 << 20)
            if not received:
                raise SystemExit("the server closed the connection")
            self._reader.feed(received)
        if isinstance(reply, hiredis.ReplyError):
            raise SystemExit(f"Error: {reply}")
        return cast("object", reply)


def work(concurrency: int) -> None:
    """Claim and settle until killed; each lane holds half the slots, a batch at most."""
    ticks = open_ticks()
    wanted = min(BATCH_JOBS, concurrency // LANES)
    lanes = [Lane(QueueKeys(QUEUE), wanted) for _ in range(LANES)]
    for lane in lanes:
        lane.send(())
    while True:
        for lane in lanes:
            jobs = lane.receive().jobs
            os.write(ticks, b"." * len(jobs))
            if not jobs:
                # The backlog is drained, or not there yet: do not spin.
                time.sleep(0.001)
            lane.send(jobs)


if __name__ == "__main__":
    work(int(sys.argv[2]))
