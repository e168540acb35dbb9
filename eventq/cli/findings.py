"""What an examination finds: where, what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["OK", "PROBLEM", "UNKNOWN", "WARNING", "Finding", "some"]

OK: Final = "ok"
#: Could not be looked at: the server does not permit it. No failure.
UNKNOWN: Final = "unknown"
WARNING: Final = "warning"
PROBLEM: Final = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One. where: `server` or a queue's name. advice: what to do, '' where all is well."""

    where: str
    check: str
    level: str
    message: str
    advice: str = ""

    def document(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


def some(ids: Sequence[str], most: int = 3) -> str:
    """Return the first of several ids: `a, b, c, …`."""
    return ", ".join(ids[:most]) + (", …" if len(ids) > most else "")
