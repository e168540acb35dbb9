"""The names in Redis: `prefix:{tag}:queue:column`, and what may be a name."""

from __future__ import annotations

import re
from typing import Final

from eventq.errors import ConfigurationError, InvalidJob
from eventq.spans import scope_of

COLUMNS: Final = (
    "meta calls jobs data runs results progress logs wait prioritized delayed leases waiting_children completed failed "
    "timers totals events marker dedup schedules slots workers consumers outbox children groups group_turns"
).split()

#: What each column is in Redis; those that are not here are hashes.
_TYPES: Final = {
    **dict.fromkeys("prioritized delayed leases waiting_children completed failed timers marker slots".split(), "zset"),
    "wait": "list",
    "events": "stream",
}
_QUEUE_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_ANY_JOB_ID = re.compile(r"[A-Za-z0-9._:-]{1,256}\Z")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_JOB_NAME = re.compile(r"[A-Za-z0-9._:/ -]{1,128}\Z")
_known_names: Final[set[str]] = set()
_MOST_KNOWN: Final = 10_000


class QueueKeys:
    """The keys of one queue: every column by its name, all in one Cluster slot by the tag in braces."""

    __slots__ = ("_keys", "name", "prefix", "tag")

    def __init__(self, name: str, *, prefix: str = "eventq", tag: str | None = None) -> None:
        self.name = check_queue_name(name)
        self.tag = check_queue_name(tag) if tag is not None else name
        if not isinstance(prefix, str) or not _PREFIX.match(prefix):
            raise ConfigurationError(f"prefix {prefix!r}: must be 1 to 64 of A-Z a-z 0-9 . _ -")
        self.prefix = prefix
        self._keys = {column: f"{prefix}:{{{self.tag}}}:{name}:{column}" for column in COLUMNS}

    def __getitem__(self, column: str) -> str:
        return self._keys[column]

    @property
    def queues(self) -> str:
        """The hash that lists every queue of this prefix: name -> tag."""
        return f"{self.prefix}:queues"

    @property
    def scope(self) -> str:
        """What tells this queue from others of the same name, in ids that are made of it."""
        return scope_of(self.prefix, self.name)

    def __repr__(self) -> str:
        return f"QueueKeys({self._keys['meta'].removesuffix(':meta')!r})"


def type_of(column: str) -> str:
    """Return what a column is in Redis, in the words of its command TYPE."""
    return _TYPES.get(column, "hash")


def check_queue_name(name: object, what: str = "queue name") -> str:
    """Return the name; raise ConfigurationError when it cannot name a queue or a reader."""
    if isinstance(name, str) and _QUEUE_NAME.match(name):
        return name
    raise ConfigurationError(f"{what} {_short(name)}: must be 1 to 128 of A-Z a-z 0-9 . _ -")


def check_job_name(name: object) -> str:
    """Return the name; raise InvalidJob when it cannot name a job. Names come again and again: they are matched once."""
    if isinstance(name, str) and is_job_name(name):
        return name
    raise InvalidJob(f"job name {_short(name)}: must be 1 to 128 of A-Z a-z 0-9 . _ - : / and space")


def is_job_name(name: str) -> bool:
    """Whether it can name a job, and stand in an event as it is."""
    if name in _known_names:
        return True
    if not _JOB_NAME.match(name):
        return False
    if len(_known_names) < _MOST_KNOWN:
        _known_names.add(name)
    return True


def check_own_id(job_id: object) -> str:
    """Return the id; raise InvalidJob when it cannot be one that a caller chose for a new job."""
    if isinstance(job_id, str) and _QUEUE_NAME.match(job_id):
        return job_id
    raise InvalidJob(f"job_id {_short(job_id)}: must be 1 to 128 of A-Z a-z 0-9 . _ -")


def check_job_id(job_id: object) -> str:
    """Return the id; raise InvalidJob when no job can have it. Where schedules make ids there is a colon in them."""
    if isinstance(job_id, str) and _ANY_JOB_ID.match(job_id):
        return job_id
    raise InvalidJob(f"job_id {_short(job_id)}: must be 1 to 256 of A-Z a-z 0-9 . _ - :")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
