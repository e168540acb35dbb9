"""How durable a job must be before adding it counts as done."""

from __future__ import annotations

from enum import StrEnum

from eventq.errors import ConfigurationError


class Durability(StrEnum):
    """What adding waits for: `memory`, the server has the job; `fsync`, its disk has it too; `replica`, a replica has it too."""

    MEMORY = "memory"
    FSYNC = "fsync"
    REPLICA = "replica"


def check_durability(value: object) -> Durability:
    """Return the level. Raises ConfigurationError."""
    try:
        return Durability(value)  # type: ignore[arg-type]  # whatever else it is, it is none of them
    except ValueError:
        raise ConfigurationError(f"durability {value!r}: must be {', '.join(Durability)}") from None
