"""One Redis or Valkey, by URL: how to connect to it, and the checks made once."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from redis import ConnectionPool as SyncPool
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.retry import Retry as SyncRetry

from eventq.embedded import start_embedded
from eventq.errors import ConfigurationError

if TYPE_CHECKING:
    from eventq.client.wire import AsyncConnection, SyncConnection

DEFAULT_URL = "redis://localhost:6379/0"
CONNECT_TIMEOUT = 5.0
_SCHEMES = ("redis", "rediss", "unix", "embedded")
_UNREADABLE = "cannot be read; check host and port, and percent-encode what user and password hold of / # ? @ : [ ]"
_FLOOR = {"redis": (7, 0), "valkey": (7, 2)}


class Server:
    """Where the queues live. Holds no connection; repr and errors show no password."""

    def __init__(self, url: str | None = None) -> None:
        self._url = url or os.environ.get("EVENTQ_URL") or DEFAULT_URL
        if not isinstance(self._url, str):
            raise ConfigurationError(f"url {self._url!r}: must be a string")
        scheme = self._url.partition("://")[0]
        if scheme not in _SCHEMES or "://" not in self._url:
            raise ConfigurationError(f"url {redact(self._url)!r}: must start with {', '.join(f'{s}://' for s in _SCHEMES)}")
        self.where = redact(self._url)
        if scheme in ("redis", "rediss") and not _is_readable(self._url):
            raise ConfigurationError(f"url {self.where!r}: {_UNREADABLE}")
        self.is_checked = False

    def _address(self) -> str:
        return start_embedded(self._url).url if self._url.startswith("embedded:") else self._url

    @property
    def may_start(self) -> bool:
        """Whether connecting may first have to start a server, which takes a moment."""
        return self._url.startswith("embedded:")

    def async_connection(self, client_name: str) -> AsyncConnection:
        """Return a connection of redis-py, not connected yet, that never resends anything by itself."""
        return cast("AsyncConnection", self._connection(AsyncPool, AsyncRetry(NoBackoff(), 0), client_name, None))

    def sync_connection(self, client_name: str, timeout: float) -> SyncConnection:
        """Return a blocking connection of redis-py with a socket time-out, not connected yet."""
        return cast("SyncConnection", self._connection(SyncPool, SyncRetry(NoBackoff(), 0), client_name, timeout))

    def _connection(self, pools: Any, retry: object, client_name: str, timeout: float | None) -> object:
        address = self._address()
        # Twice: what stands in the URL's query must not change what is ours to say.
        ours = _settings(address, client_name) | {"retry": retry}
        try:
            pool: Any = pools.from_url(address, **ours)
            return pool.connection_class(**{**pool.connection_kwargs, **ours, "socket_timeout": timeout})
        except ValueError:  # its text may quote a part of the password
            raise ConfigurationError(f"url {self.where!r}: {_UNREADABLE}") from None
        except TypeError as error:
            raise ConfigurationError(f"url {self.where!r}: an unknown option after the question mark: {error}") from None

    def check(self, info: str) -> None:
        """Check what INFO says, once: version floor, eviction policy, role. Raises ConfigurationError."""
        rows = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
        name = rows.get("server_name", "redis")
        version = rows.get(f"{name}_version") or rows.get("redis_version", "0")
        floor = _FLOOR.get(name, _FLOOR["redis"])
        numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if numbers < floor:
            raise ConfigurationError(f"{self.where} is {name} {version}: eventq needs Redis 7.0 or Valkey 7.2 at least")
        policy = rows.get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys") and os.environ.get("EVENTQ_ALLOW_EVICTION") != "1":
            raise ConfigurationError(
                f"{self.where} has maxmemory-policy {policy}: one evicted key would be a whole column of a queue; set it to "
                "noeviction (or set EVENTQ_ALLOW_EVICTION=1 and accept the loss)"
            )
        if rows.get("role") == "slave":
            raise ConfigurationError(f"{self.where} is a replica: eventq writes, so connect to the primary")
        self.is_checked = True

    def __repr__(self) -> str:
        return f"<Server {self.where}>"


def _settings(address: str, client_name: str) -> dict[str, Any]:
    tcp = {} if address.startswith("unix:") else {"socket_connect_timeout": CONNECT_TIMEOUT, "socket_keepalive": True}
    return tcp | {
        "retry_on_error": [],
        "health_check_interval": 0,
        "client_name": client_name,
        "protocol": 2,
        "encoding": "utf-8",
        # A damaged record must fail one job, not the connection that reads it.
        "encoding_errors": "replace",
        "decode_responses": True,
    }


def redact(url: str) -> str:
    """Return the URL without user, password and query, fit for logs and errors; where it is not sure which is which, less."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    if scheme == "embedded":
        return url
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    if after and "@" in after[0]:
        return f"{scheme}{separator}…"
    return f"{scheme}{separator}{before.rpartition('@')[2]}"


def _is_readable(url: str) -> bool:
    """Whether user and password end where they seem to: an unescaped / or # in them moves the host elsewhere."""
    try:
        parts = urlsplit(url)
        return parts.port != 0 and "@" not in parts.path and not parts.fragment
    except ValueError:
        return False
