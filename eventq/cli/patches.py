"""Which releases of Redis and Valkey have the fixes for flaws by which whoever may run commands there can run code.

Taken from the projects' release notes and the CVE records; SECURITY.md shows the same table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

__all__ = ["FLAWS", "MAINTAINED", "Flaw", "lacking", "least_patched"]

Line = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One, or several that were fixed together. redis, valkey: the first release of each line with the fix, as far as is known.

    since: the oldest line that has the flaw.
    """

    names: str
    what: str
    redis: str = ""
    valkey: str = ""
    since: Line = (0, 0)

    def fixed(self, kind: str) -> dict[Line, Line]:
        """Return the first release with the fix by line."""
        releases = [_numbers(each) for each in (self.valkey if kind == "valkey" else self.redis).split()]
        return {release[:2]: release for release in releases}


FLAWS: Final = (
    Flaw("CVE-2024-31449", "a Lua script overflows the stack", redis="7.2.6 7.4.1", valkey="7.2.7 8.0.1"),
    Flaw("CVE-2024-46981", "a Lua script misuses the garbage collector", redis="7.2.7 7.4.2"),
    Flaw(
        "CVE-2025-49844, CVE-2025-46817, CVE-2025-46818",
        "a Lua script uses what was freed, overflows an integer, runs as another user",
        redis="7.2.11 7.4.6 8.0.4 8.2.2",
        valkey="7.2.11 8.0.6 8.1.4",
    ),
    Flaw(
        "CVE-2026-23479",
        "a blocked client is used after it was freed",
        redis="7.4.9 8.2.6 8.4.3 8.6.3",
        valkey="7.2.13 8.0.9 8.1.7 9.0.4",
        since=(7, 2),
    ),
    Flaw("CVE-2026-63639", "a corrupt stream is restored", valkey="7.2.14 8.0.10 8.1.9 9.0.5 9.1.1"),
    Flaw("GHSA-fq2f-crmw-q97r", "the Lua interpreter is used after it was freed", valkey="9.1.2", since=(9, 1)),
    Flaw(
        "CVE-2026-81934",
        "over TLS, without a login: data is used after it was freed",
        redis="7.2.16 7.4.11 8.2.9 8.4.6 8.6.6 8.8.2 8.10.1",
    ),
)
#: The lines that had the newest of these fixes. An older one that is not here gets none any more.
MAINTAINED: Final = {"redis": "7.2 7.4 8.2 8.4 8.6 8.8 8.10", "valkey": "7.2 8.0 8.1 9.0 9.1"}


def least_patched(kind: str, version: str) -> str | None:
    """Return the first release of this version's line that has every fix; None for a line that gets none any more.

    '' for a line that is newer than all of these.
    """
    line = _numbers(version)[:2]
    maintained = [_numbers(each) for each in MAINTAINED[kind].split()]
    if line > max(maintained):
        return ""
    if line not in maintained:
        return None
    return _text(max(fixed[line] for flaw in FLAWS if line in (fixed := flaw.fixed(kind))))


def lacking(kind: str, version: str) -> list[str]:
    """Return the names of the flaws that this version is known to have, the newest first."""
    numbers = _numbers(version)
    line, names = numbers[:2], list[str]()
    for flaw in reversed(FLAWS):
        fixed = flaw.fixed(kind)
        if not fixed or line < flaw.since or line > max(fixed):
            continue
        # A maintained line without a release in the table has the fix in one that is not known.
        if numbers < fixed[line] if line in fixed else least_patched(kind, version) is None:
            names += flaw.names.split(", ")
    return names


def _numbers(version: str) -> Line:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _text(numbers: Line) -> str:
    return ".".join(map(str, numbers))
