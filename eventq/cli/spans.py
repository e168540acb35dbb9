"""Durations as they are typed: `90`, `15m`, `2h`, `7d`."""

from __future__ import annotations

import re
from typing import Final

from eventq.cli.runtime import UsageError

__all__ = ["parse_seconds"]

_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw]?)\Z")


def parse_seconds(option: str, text: str) -> float:
    """Return seconds. Raises UsageError that names the option."""
    found = _FORM.match(text)
    if found is None:
        raise UsageError(f"{option} {text!r}: must be seconds or a number with s, m, h, d or w, as in 90, 15m, 2h, 7d")
    return float(found[1]) * _UNITS[found[2]]
