"""What a driver error means, by its code, never by its wording: wait, reconnect, follow, or tell the caller."""

from __future__ import annotations

from enum import Enum
from ssl import SSLCertVerificationError, SSLError
from typing import Final

from redis import exceptions as redis_errors

from eventq.errors import ConfigurationError, EventqError, QueueUnavailable, ScriptError, ServerRefused


class Remedy(Enum):
    """What to do about an error reply or a broken connection."""

    LOAD_SCRIPT = "load the script and send again"
    WAIT = "the server is busy with itself: wait and send again"
    RECONNECT = "the connection or its server is no longer right: connect again and send again"
    FOLLOW = "another node of the Cluster holds the queue: connect to it and send again"
    REFUSED = "the server takes no writes for now: tell the caller; what has all the time in the world waits"
    FORBIDDEN = "the user lacks a permission, nothing was done: tell the caller; what has worked before, and tells of it, waits"
    RAISE = "the caller must know"


#: The code is the first word of an error reply. What is not here is raised.
_REMEDIES: Final = {
    "NOSCRIPT": Remedy.LOAD_SCRIPT,
    "LOADING": Remedy.WAIT,
    "BUSY": Remedy.WAIT,
    "TRYAGAIN": Remedy.WAIT,  # the queue's slot is being moved
    "ASK": Remedy.WAIT,  # the same, seen from a column that is empty or has been moved
    "CLUSTERDOWN": Remedy.RECONNECT,  # another node may know better
    "MASTERDOWN": Remedy.RECONNECT,
    "READONLY": Remedy.RECONNECT,
    "UNBLOCKED": Remedy.RECONNECT,
    "MOVED": Remedy.FOLLOW,
    "NOREPLICAS": Remedy.RECONNECT,  # after a failover the old primary says so, and there is a new one
    "MISCONF": Remedy.REFUSED,
    "CERTIFICATE": Remedy.REFUSED,  # ours, for a server that does not show who it is
    "TLSVERSION": Remedy.REFUSED,  # ours, for one that speaks no TLS that is new enough
    "OOM": Remedy.RAISE,
    "NOAUTH": Remedy.RAISE,
    "WRONGPASS": Remedy.RAISE,
    "NOPERM": Remedy.FORBIDDEN,
    "NOPERM in a script": Remedy.RAISE,  # it stopped half way: not to be done again and again
}
#: A script that may not do something ends with an error that has no code; before Valkey, without a word of who may not do what.
_IN_A_SCRIPT: Final = ("ACL failure in script", "The user executing the script can't ")
#: redis-py takes the code away and says it with a class; subclasses stand before their parents.
_CODES: Final[tuple[tuple[type[Exception], str], ...]] = (
    (redis_errors.NoScriptError, "NOSCRIPT"),
    (redis_errors.BusyLoadingError, "LOADING"),
    (redis_errors.TryAgainError, "TRYAGAIN"),
    (redis_errors.MasterDownError, "MASTERDOWN"),
    (redis_errors.ClusterDownError, "CLUSTERDOWN"),
    (redis_errors.ReadOnlyError, "READONLY"),
    (redis_errors.MovedError, "MOVED"),
    (redis_errors.AskError, "ASK"),
    (redis_errors.OutOfMemoryError, "OOM"),
    (redis_errors.NoPermissionError, "NOPERM"),
    (redis_errors.AuthenticationError, "NOAUTH"),
    (redis_errors.AuthorizationError, "NOAUTH"),
)
#: What OpenSSL says when the two have no version in common: told by the server, or seen here.
_TOO_OLD: Final = ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL")
_REASONS: Final = {
    "OOM": "Redis is out of memory (maxmemory reached) and takes no more jobs; workers go on",
    "NOPERM": "the Redis user lacks a permission",
    "NOPERM in a script": "the Redis user lacks a permission for a command inside of the script (ACL LOG says which; "
    "`eventq acl` prints what each role needs)",
    "NOAUTH": "Redis refuses the credentials",
    "WRONGPASS": "Redis refuses the credentials",
    "CERTIFICATE": "the server's certificate is not accepted (ssl_ca_certs= in the URL names whose signature is)",
    "TLSVERSION": "the server speaks no TLS that is new enough (1.2, or what ssl_min_version= in the URL says)",
    "WRONGTYPE": "a key of the queue holds another type than eventq puts there; `eventq doctor` names it",
    "MISCONF": "Redis cannot save to disk and refuses writes",
}


def code_of(error: Exception) -> str:
    """Return the code of an error reply, CERTIFICATE or TLSVERSION; of anything else its first word, which is no code."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, SSLCertVerificationError):
        return "CERTIFICATE"
    if isinstance(cause, SSLError) and cause.reason in _TOO_OLD:
        return "TLSVERSION"
    said = getattr(error, "status_code", None)  # redis-py 8 and newer say it
    if said in _REMEDIES:
        return str(said)
    for cls, code in _CODES:
        if isinstance(error, cls):
            return code
    if str(error).removeprefix("ERR ").startswith(_IN_A_SCRIPT):
        return "NOPERM in a script"
    return str(error).split(" ", 1)[0]


def remedy_of(error: Exception) -> Remedy:
    """Return what to do about an error of the driver."""
    remedy = _REMEDIES.get(code_of(error))
    if remedy is not None:
        return remedy
    return Remedy.RECONNECT if is_broken(error) else Remedy.RAISE


def is_broken(error: Exception) -> bool:
    """Whether there was no answer at all: the connection ended, or was silent for too long."""
    is_of_a_connection = isinstance(error, redis_errors.ConnectionError | redis_errors.TimeoutError | OSError)
    return is_of_a_connection and code_of(error) not in _REMEDIES


def refusal(error: Exception, what: str) -> EventqError:
    """Return our error for a reply that the caller must know about."""
    code = code_of(error)
    if code in _REASONS:
        return ServerRefused(f"{what}: {_REASONS[code]}: {error}", code.partition(" ")[0])
    return ScriptError(f"{what}: Redis answered: {error}")


def not_a_cluster_url(where: str) -> ConfigurationError:
    """Return our error for a node of a Cluster that was taken for a server of its own."""
    return ConfigurationError(f"{where} is a node of a Redis Cluster: give its nodes as cluster://host:port,host:port")


def unavailable(what: str, where: str, seconds: float, error: BaseException) -> QueueUnavailable:
    """Return our error for a server that could not be reached in time."""
    said = str(error) or type(error).__name__
    unknown = "; whether it took effect is unknown, repeating an add is safe with a job_id of your own"
    return QueueUnavailable(
        f"{what}: no answer from {where} for {seconds:.1f} seconds: {said}{unknown if what.startswith('script') else ''}"
    )
