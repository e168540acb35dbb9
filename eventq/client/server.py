"""One place where queues live, by URL: how to connect to it, and the checks made once."""

from __future__ import annotations

import os
import re
import socket
from inspect import signature
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from redis import ConnectionPool as SyncPool
from redis.asyncio import ConnectionPool as AsyncPool
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.crc import key_slot
from redis.retry import Retry as SyncRetry

from eventq.client.address import SCHEMES, parse_address
from eventq.client.faults import not_a_cluster_url
from eventq.client.tls import is_tls, least_version, unusable, weakness
from eventq.embedded import start_embedded
from eventq.errors import ConfigurationError

if TYPE_CHECKING:
    from redis.exceptions import MovedError

    from eventq.client.wire import AsyncConnection, SyncConnection

DEFAULT_URL = "redis://localhost:6379/0"
CONNECT_TIMEOUT = 5.0
_UNREADABLE = "cannot be read; check host and port, and percent-encode what user and password hold of / # ? @ : [ ]"
_FLOOR = {"redis": (7, 0), "valkey": (7, 2)}
#: Seconds: an idle connection says so often enough that no router on the way forgets it, and a dead one is noticed.
_KEEPALIVE: Final = {
    option: seconds
    for name, seconds in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
    if (option := getattr(socket, name, None)) is not None
}
#: What keeps redis-py from telling the server its own name and version: two more commands, and two more permissions.
_NAMELESS: Final = dict.fromkeys({"driver_info"} & {*signature(AbstractConnection).parameters} or {"lib_name", "lib_version"})


class Server:
    """Where the queues live. Holds no connection; repr and errors show no password.

    key: any key of the queue, which tells its slot in a Cluster.
    """

    def __init__(self, url: str | None = None, key: str = "") -> None:
        self._url = url or os.environ.get("EVENTQ_URL") or DEFAULT_URL
        if not isinstance(self._url, str):
            raise ConfigurationError(f"url {self._url!r}: must be a string")
        scheme = self._url.partition("://")[0]
        if scheme not in SCHEMES or "://" not in self._url:
            raise ConfigurationError(f"url {redact(self._url)!r}: must start with {', '.join(f'{s}://' for s in SCHEMES)}")
        self.where = redact(self._url)
        #: The same for whom it does not answer: who gave no URL learns that one may be given.
        self.asked = self.where
        if url is None and not os.environ.get("EVENTQ_URL"):
            self.asked += " (neither url= nor EVENTQ_URL says where the server is; embedded:// starts one here)"
        try:
            self.address = parse_address(self._url)
            node = self.address.nodes[0]  # every node has the same options
            wrong = unusable(node)
            weak = "" if wrong else weakness(node)
        except ValueError:  # its text may quote a part of the password
            raise ConfigurationError(f"url {self.where!r}: {self._unreadable}") from None
        if wrong:
            raise ConfigurationError(f"url {self.where!r}: {wrong}")
        if weak and os.environ.get("EVENTQ_ALLOW_INSECURE_TLS") != "1":
            raise ConfigurationError(
                f"url {self.where!r}: {weak}; name the authority to trust with ssl_ca_certs= instead "
                "(or set EVENTQ_ALLOW_INSECURE_TLS=1 and accept that)"
            )
        self.is_checked = False
        self._slot = key_slot(key.encode())
        self._node = 0
        self._trusted = ""
        #: In a Cluster, the node that holds the queue, once one has said so.
        self._owner: str | None = None

    @property
    def _unreadable(self) -> str:
        kind = self._url.partition(":")[0].partition("+")[0]
        form = {"sentinel": "sentinel://host:port,host:port/SERVICE/DB", "cluster": "cluster://host:port,host:port"}.get(kind)
        return f"{_UNREADABLE}; the form is {form}" if form else _UNREADABLE

    @property
    def may_start(self) -> bool:
        """Whether connecting may first have to start a server, which takes a moment."""
        return self._url.startswith("embedded:")

    def next_node(self) -> str:
        """Return the URL of the server, or of the node of a Cluster that is to be tried next."""
        if self.may_start:
            return start_embedded(self._url).url
        return self._owner or self.address.nodes[self._node % len(self.address.nodes)]

    def sentinels(self) -> list[str]:
        """Return the URLs of the Sentinels, the one that was right last first."""
        return sorted(self.address.nodes, key=lambda node: node != self._trusted)

    def trust(self, sentinel: str) -> None:
        """Ask this Sentinel first from now on."""
        self._trusted = sentinel

    def node_failed(self, url: str) -> None:
        """Try another node of a Cluster next: this one is not there, or does not know. Many may say so of one node."""
        if url == self._owner:
            self._owner = None
        elif url == self.address.nodes[self._node % len(self.address.nodes)]:
            self._node += 1

    def follow(self, moved: MovedError, asked: str) -> str:
        """Return the URL of the node that the node asked names; where the queue's own slot is, is kept in mind."""
        slot, _, place = str(moved).partition(" ")
        host, _, port = place.rpartition(":")
        # Without a host it means its own.
        url = self.address.url_of(host or urlsplit(asked).hostname or "", int(port))
        if int(slot) == self._slot and url != self._owner:
            self._owner = url
            self.is_checked = False
        return url

    def async_connection(self, client_name: str, node: str | None = None) -> AsyncConnection:
        """Return a connection of redis-py, not connected yet, that never resends anything by itself."""
        return cast("AsyncConnection", self._connection(AsyncPool, AsyncRetry(NoBackoff(), 0), node, client_name, None))

    def sync_connection(self, client_name: str, timeout: float, node: str | None = None) -> SyncConnection:
        """Return a blocking connection of redis-py with a socket time-out, not connected yet."""
        return cast("SyncConnection", self._connection(SyncPool, SyncRetry(NoBackoff(), 0), node, client_name, timeout))

    def _connection(self, pools: Any, retry: object, node: str | None, client_name: str, timeout: float | None) -> object:
        url = node or self.next_node()
        # Twice: what stands in the URL's query must not change what is ours to say.
        ours = _settings(url, client_name, min(CONNECT_TIMEOUT, timeout or CONNECT_TIMEOUT)) | {"retry": retry}
        try:
            pool: Any = pools.from_url(url, **ours)
            options = {**pool.connection_kwargs, **ours, "socket_timeout": timeout}
            if is_tls(url):
                options["ssl_min_version"] = least_version(options)
            return pool.connection_class(**options)
        except ValueError:  # its text may quote a part of the password
            raise ConfigurationError(f"url {self.where!r}: {self._unreadable}") from None
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
        if self.address.kind == "single" and rows.get("cluster_enabled") == "1":
            raise not_a_cluster_url(self.where)
        # Sentinels may name a server that is no longer, and a node of a Cluster names the right one.
        if self.address.kind == "single" and rows.get("role") == "slave":
            raise ConfigurationError(f"{self.where} is a replica: eventq writes, so connect to the primary")
        self.is_checked = True

    def __repr__(self) -> str:
        return f"<Server {self.where}>"


def _settings(url: str, client_name: str, connect_timeout: float) -> dict[str, Any]:
    tcp = {"socket_connect_timeout": connect_timeout, "socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    return ({} if url.startswith("unix:") else tcp) | {
        "retry_on_error": [],
        "health_check_interval": 0,
        "client_name": client_name,
        "protocol": 2,
        **_NAMELESS,
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
