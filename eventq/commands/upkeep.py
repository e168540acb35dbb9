"""What the scheduler sends: sweeping leases and due jobs, timers, trimming the event stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventq.commands.core import Command
from eventq.limits import EVENT_RETENTION, READER_LIVE_MS
from eventq.scripts import load_script

if TYPE_CHECKING:
    from eventq.commands.work import Retention
    from eventq.keys import QueueKeys

#: Jobs or timers handled per call.
SLICE = 100
#: Stream entries looked at per call: each may hold 32 KiB, and the script reads them whole.
ENTRIES = 32


@dataclass(frozen=True, slots=True)
class SweepReply:
    """`next_*_ms`: until the next lease ends, the next delayed job is due, the next timer ends, the next slot of a schedule;
    None for none. in_line: whether there is work to claim.
    """

    reclaimed: int
    promoted: int
    more: bool
    next_lease_ms: int | None
    next_due_ms: int | None
    next_timer_ms: int | None
    event_bytes: int
    in_line: bool
    next_slot_ms: int | None


def sweep_queue(keys: QueueKeys, lease_ms: int, every_ms: int, max_stalls: int, retention: Retention) -> Command[SweepReply]:
    """Take back what lost its worker and promote what is due, a slice of each.

    every_ms: how long the sweeper waits between two sweeps at most. A quarter longer, and nobody was there to sweep.
    """
    script = load_script("sweep_queue")
    args: list[str | int] = [lease_ms, max_stalls, SLICE, *retention.failed, every_ms]
    return Command(script, script.keys(keys), args, _parse_sweep)


def _parse_sweep(reply: list[Any]) -> SweepReply:
    reclaimed, promoted, more, lease, due, timer, event_bytes, in_line, slot = reply[1:10]
    return SweepReply(
        reclaimed,
        promoted,
        more == 1,
        lease if lease >= 0 else None,
        due if due >= 0 else None,
        timer if timer >= 0 else None,
        event_bytes,
        in_line == 1,
        slot if slot >= 0 else None,
    )


def run_timers(keys: QueueKeys, retention: Retention) -> Command[bool]:
    """End a slice of what expired. Returns whether there is more."""
    script = load_script("run_timers")
    args: list[str | int] = [SLICE, *retention.words]
    return Command(script, script.keys(keys), args, lambda reply: reply[2] == 1)


def trim_events(keys: QueueKeys, retention: tuple[int, int, int, int] = EVENT_RETENTION) -> Command[bool]:
    """Trim a slice of the event stream (events, bytes, age in ms, hard cap in bytes). Returns whether there is more."""
    script = load_script("trim_events")
    args: list[str | int] = [*retention, READER_LIVE_MS, ENTRIES]
    return Command(script, script.keys(keys), args, lambda reply: reply[2] == 1)
