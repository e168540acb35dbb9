"""The state of one queue's metrics as it is saved with the position, in one write."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from eventq_prometheus.spread import Spread

__all__ = ["LAYOUT", "Saved", "parse_saved"]

LAYOUT: Final = 1

#: No count comes near the largest that is saved.
Count = Annotated[int, msgspec.Meta(ge=-(2**62), le=2**62)]
#: What is counted, then by job name.
Counts = dict[str, dict[str, Count]]


class Saved(msgspec.Struct, omit_defaults=True):
    """Everything about one queue that must survive the exporter.

    totals: what the queue counts too, by kind and job name; offsets: how far they are ahead of the queue's own column, by which
    they go on after a failover and after an obliterate. is_based: whether they were ever compared. more: what only events tell,
    by kind and job name. errors: by job name and type. plain: by kind, of the queue. events: by kind. missed: by schedule.
    spreads: by metric and labels, for the whole queue and by job name where that was asked for. busy_ms, busy_offset: as totals
    and offsets. born: groups of series that a scrape has seen at 0.
    """

    layout: int = LAYOUT
    is_based: bool = False
    totals: Counts = {}
    offsets: Counts = {}
    more: Counts = {}
    errors: Counts = {}
    plain: dict[str, Count] = {}
    events: dict[str, Count] = {}
    missed: dict[str, Count] = {}
    spreads: dict[str, dict[str, Spread]] = {}
    busy_ms: Count = 0
    busy_offset: Count = 0
    born: set[str] = set()

    @property
    def text(self) -> str:
        """The form it is saved in."""
        return _encode(self).decode()


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(Saved).decode


def parse_saved(text: str) -> Saved:
    """Return what was saved, a new one for ''. Raises ValueError for what is none of ours, or of a newer exporter."""
    if not text:
        return Saved()
    try:
        saved = _decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if saved.layout != LAYOUT:
        raise ValueError(f"layout {saved.layout}, this exporter knows {LAYOUT}")
    return saved
