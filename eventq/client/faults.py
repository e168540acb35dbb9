"""What a driver error means, by class or code prefix, never by wording: wait, reconnect, or tell the caller."""

from __future__ import annotations

from enum import Enum
from typing import Final

from redis import exceptions as redis_errors

from eventq.errors import EventqError, QueueUnavailable, ScriptError, ServerRefused


class Remedy(Enum):
    """What to do about an error reply or a broken connection."""

    LOAD_SCRIPT = "load the script and send again"
    WAIT = "the server is busy with itself: wait and send again"
    RECONNECT = "the connection or its server is no longer right: connect again and send again"
    RAISE = "the caller must know"


_REMEDIES: Final[tuple[tuple[type[Exception], Remedy], ...]] = (
    (redis_errors.NoScriptError, Remedy.LOAD_SCRIPT),
    (redis_errors.AuthenticationError, Remedy.RAISE),
    (redis_errors.NoPermissionError, Remedy.RAISE),
    (redis_errors.AuthorizationError, Remedy.RAISE),
    (redis_errors.BusyLoadingError, Remedy.WAIT),
    (redis_errors.TryAgainError, Remedy.WAIT),
    (redis_errors.ClusterDownError, Remedy.WAIT),
    (redis_errors.MasterDownError, Remedy.WAIT),
    (redis_errors.ReadOnlyError, Remedy.RECONNECT),
    (redis_errors.MovedError, Remedy.RECONNECT),
    (redis_errors.AskError, Remedy.RECONNECT),
    (redis_errors.ConnectionError, Remedy.RECONNECT),
    (redis_errors.TimeoutError, Remedy.RECONNECT),
    (OSError, Remedy.RECONNECT),
)
_WAIT_CODES: Final = ("BUSY", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")
_RECONNECT_CODES: Final = ("READONLY", "UNBLOCKED", "MOVED", "ASK")


def remedy_of(error: Exception) -> Remedy:
    """Return what to do about an error of the driver."""
    for cls, remedy in _REMEDIES:
        if isinstance(error, cls):
            return remedy
    code = str(error).split(" ", 1)[0]
    if code in _WAIT_CODES:
        return Remedy.WAIT
    return Remedy.RECONNECT if code in _RECONNECT_CODES else Remedy.RAISE


def refusal(error: Exception, what: str) -> EventqError:
    """Return our error for a reply that the caller must know about."""
    text = str(error)
    if isinstance(error, redis_errors.OutOfMemoryError) or text.startswith("OOM"):
        return ServerRefused(f"{what}: Redis is out of memory (maxmemory reached) and takes no more jobs; workers go on", "OOM")
    if isinstance(error, redis_errors.NoPermissionError):
        return ServerRefused(f"{what}: the Redis user lacks a permission: {text}", "NOPERM")
    if isinstance(error, redis_errors.AuthenticationError):
        return ServerRefused(f"{what}: Redis refuses the credentials: {text}", "NOAUTH")
    code = text.split(" ", 1)[0]
    if code == "MISCONF":
        return ServerRefused(f"{what}: Redis cannot save to disk and refuses writes: {text}", "MISCONF")
    if code in ("NOAUTH", "WRONGPASS", "NOPERM"):
        return ServerRefused(f"{what}: Redis refuses: {text}", code)
    return ScriptError(f"{what}: Redis answered: {text}")


def unavailable(what: str, where: str, seconds: float, error: BaseException) -> QueueUnavailable:
    """Return our error for a server that could not be reached in time."""
    unknown = "; whether it took effect is unknown, repeating an add is safe with a job_id of your own"
    return QueueUnavailable(
        f"{what}: no answer from {where} for {seconds:.1f} seconds: {error}{unknown if what.startswith('script') else ''}"
    )
