"""Signed jobs: an envelope around a job's data, or a schedule's definition, that only holders of a key make. It hides nothing.

An envelope is `~1 KEY-ID MAC TEXT`. JSON never begins with `~`, so a signed text is told from one that is not by its first
character. The MAC is HMAC-SHA256 over what the text belongs to and the text, each with its length before it.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from eventq.errors import BadSignature, ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    from eventq.keys import QueueKeys
    from eventq.records import Record

#: Names a file of signing keys, for queues that are given none.
KEYS_FILE: Final = "EVENTQ_SIGNING_KEYS_FILE"
#: As long as the hash is: a shorter key would be the weakest part.
KEY_BYTES: Final = 32

_MARK: Final = "~"
_ENVELOPE: Final = re.compile(r"~1 ([A-Za-z0-9._-]{1,32}) ([0-9a-f]{64}) ")
#: Ids are stored with every job: none is as long as a key in hexadecimal or base64, so that no key is taken for one.
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,32}\Z")
_FORM: Final = "each line is ID KEY, the key in hexadecimal; `openssl rand -hex 32` makes one"


class SigningKeys:
    """Keys that sign jobs, by their ids. The first one signs, all of them verify, so that a new one can take over.

    A key is at least 32 random bytes, as `secrets.token_bytes(32)` makes them. They are never shown, and cannot be read back or
    pickled.
    """

    __slots__ = ("_macs",)

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take the keys, the one that signs first. Raises ConfigurationError, which names ids and no keys."""
        if not isinstance(keys, Mapping):
            raise ConfigurationError(f"signing_keys of type {type(keys).__name__}: must map key ids to keys (bytes)")
        if not keys:
            raise ConfigurationError("signing_keys {}: give at least one key; None leaves jobs unsigned")
        for key_id, key in cast("Mapping[object, object]", keys).items():
            _check(key_id, key)
        # Keyed already, which is quicker than keying for every job; and no key itself stands in any variable later on.
        self._macs = {key_id: hmac.new(key, digestmod="sha256") for key_id, key in keys.items()}

    @classmethod
    def from_file(cls, path: str | Path) -> SigningKeys:
        """Read a file of keys: a line `ID KEY` each, the key in hexadecimal, the one that signs first; `#` begins a comment line.

        Raises ConfigurationError, which names file and line and shows nothing of it.
        """
        try:
            with open(path, encoding="ascii") as file:
                lines = file.read().splitlines()
        except OSError as error:
            raise ConfigurationError(f"signing keys file {str(path)!r}: cannot be read: {error.strerror}") from None
        except ValueError:
            raise ConfigurationError(f"signing keys file {str(path)!r}: is not ASCII; {_FORM}") from None
        keys: dict[str, bytes] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            where = f"signing keys file {str(path)!r}, line {number}"
            try:
                key_id, text = line.split()
                key = bytes.fromhex(text)
            except ValueError:
                raise ConfigurationError(f"{where}: cannot be read; {_FORM}") from None
            if key_id in keys:
                raise ConfigurationError(f"{where}: key id {key_id!r}: is there twice")
            keys[key_id] = key
        if not keys:
            raise ConfigurationError(f"signing keys file {str(path)!r}: holds no key; {_FORM}")
        return cls(keys)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids, the one that signs first."""
        return tuple(self._macs)

    def __repr__(self) -> str:
        return f"<SigningKeys {', '.join(self._macs)}>"

    def keyed(self, *parts: str) -> dict[str, hmac.HMAC]:
        """Return a MAC of each key that has these parts already."""
        macs = {key_id: mac.copy() for key_id, mac in self._macs.items()}
        for mac in macs.values():
            mac.update(_framed(*parts))
        return macs


class Signer:
    """Signs and verifies for one queue."""

    __slots__ = ("_first", "_jobs", "_queue", "_schedules")

    def __init__(self, keys: SigningKeys, prefix: str, queue: str) -> None:
        self._queue = queue
        self._first = keys.ids[0]
        self._jobs = keys.keyed("job", prefix, queue)
        self._schedules = keys.keyed("schedule", prefix, queue)

    def seal_job(self, job_id: str, name: str, spec: str, data: str) -> str:
        """Return a job's data in its envelope."""
        mac = self._jobs[self._first].copy()
        mac.update(_framed(job_id, name, spec, data))
        return f"~1 {self._first} {mac.hexdigest()} {data}"

    def open_job(self, job_id: str, record: Record) -> str:
        """Return the data of a job that is as it was signed. Raises BadSignature."""
        return self._open(self._jobs, "job", job_id, (record.name, record.spec_text), record.data)

    def seal_schedule(self, schedule_id: str, definition: str) -> str:
        """Return a schedule's definition in its envelope."""
        mac = self._schedules[self._first].copy()
        mac.update(_framed(schedule_id, definition))
        return f"~1 {self._first} {mac.hexdigest()} {definition}"

    def open_schedule(self, schedule_id: str, text: str) -> str:
        """Return the definition of a schedule that is as it was signed. Raises BadSignature."""
        return self._open(self._schedules, "schedule", schedule_id, (), text)

    def _open(self, macs: Mapping[str, hmac.HMAC], kind: str, owner: str, parts: tuple[str, ...], text: str) -> str:
        found = _ENVELOPE.match(text)
        if found is None:
            what = "its envelope is damaged" if is_signed(text) else "it is not signed"
            raise self._bad(kind, owner, f"{what}, and this queue has signing keys: whoever made it has none, or it was altered")
        key_id, said = found.groups()
        if key_id not in macs:
            raise self._bad(kind, owner, f"signed by key {key_id!r}, which is none of the signing keys here: {', '.join(macs)}")
        body = text[found.end() :]
        mac = macs[key_id].copy()
        mac.update(_framed(owner, *parts, body))
        if not hmac.compare_digest(mac.hexdigest(), said):
            raise self._bad(kind, owner, f"its signature by key {key_id!r} is not its own: it was altered, or moved here")
        return body

    def _bad(self, kind: str, owner: str, why: str) -> BadSignature:
        return BadSignature(f"{kind} {owner!r}: {why}", queue=self._queue, id=owner)


def signer_of(keys: SigningKeys | Mapping[str, bytes] | None, queue: QueueKeys) -> Signer | None:
    """Return who signs for a queue: by the keys given, else by those of the file that the environment names, else nobody."""
    if keys is None:
        path = os.environ.get(KEYS_FILE)
        if not path:
            return None
        keys = SigningKeys.from_file(path)
    elif not isinstance(keys, SigningKeys):
        keys = SigningKeys(keys)
    return Signer(keys, queue.prefix, queue.name)


def is_signed(text: str) -> bool:
    """Whether a stored text is in an envelope, good or not."""
    return text.startswith(_MARK)


def unsealed(text: str) -> str:
    """Return what is in an envelope without verifying it; a text that is in none as it is."""
    found = _ENVELOPE.match(text) if text.startswith(_MARK) else None
    return text if found is None else text[found.end() :]


def key_of(text: str) -> str | None:
    """Return the id of the key that a text says it is signed by; None for one that is not signed."""
    found = _ENVELOPE.match(text)
    return None if found is None else found[1]


def without_keys(kind: str, owner: str, queue: str) -> BadSignature:
    """Return the error of a process that would have to verify or to sign, and has no keys."""
    why = f"it is signed, and there are no signing keys here: give signing_keys= or {KEYS_FILE}"
    return BadSignature(f"{kind} {owner!r}: {why}", queue=queue, id=owner)


def _check(key_id: Any, key: Any) -> None:
    if not isinstance(key_id, str) or not _KEY_ID.match(key_id):
        # It may be a key, and is not shown then.
        shown = repr(key_id) if isinstance(key_id, str) and len(key_id) < KEY_BYTES else f"of type {type(key_id).__name__}"
        raise ConfigurationError(f"signing key id {shown}: must be 1 to 32 of A-Z a-z 0-9 . _ -")
    if not isinstance(key, bytes):
        raise ConfigurationError(
            f"signing key {key_id!r} of type {type(key).__name__}: must be bytes, as secrets.token_bytes({KEY_BYTES}) makes them"
        )
    if len(key) < KEY_BYTES:
        raise ConfigurationError(f"signing key {key_id!r} of {len(key)} bytes: must be at least {KEY_BYTES} random ones")


def _framed(*parts: str) -> bytes:
    """Return parts as one text that no other parts give: the length of each, in characters, stands before it."""
    return "".join([f"{len(part)}:{part}" for part in parts]).encode()
