"""What a URL says: one server, the Sentinels that know a primary, or the nodes of a Cluster. Nothing is opened here."""

from __future__ import annotations

from typing import Final, Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import msgspec

SCHEMES: Final = ("redis", "rediss", "unix", "embedded", "sentinel", "sentinel+tls", "cluster", "cluster+tls")
_PORTS: Final = {"sentinel": 26379, "cluster": 6379}
_SENTINEL_LOGIN: Final = ("sentinel_username", "sentinel_password")


class Address(msgspec.Struct, frozen=True):
    """Where to connect. Every URL in it is one that redis-py reads.

    nodes: the server, the Sentinels, or the nodes of the Cluster. service: the name Sentinels know the primary by; then `before`
    and `after` are what stands around host:port in the primary's URL, as in every node's.
    """

    kind: Literal["single", "sentinel", "cluster"]
    nodes: tuple[str, ...]
    service: str = ""
    before: str = ""
    after: str = ""

    def url_of(self, host: str, port: int) -> str:
        """Return the URL of the primary that Sentinels named, or of the node that a Cluster named."""
        return f"{self.before}{f'[{host}]' if ':' in host else host}:{port}{self.after}"


def parse_address(url: str) -> Address:
    """Read a URL whose scheme is one of SCHEMES. Raises ValueError where it cannot be read."""
    scheme, _, rest = url.partition("://")
    family, _, tls = scheme.partition("+")
    if family not in _PORTS:
        if scheme in ("redis", "rediss"):
            _check_node(url)
        return Address("single", (url,))
    before_query, _, query = rest.partition("?")
    login, at, places = before_query.rpartition("@")
    hosts, _, path = places.partition("/")
    service, _, database = path.partition("/")
    if family == "cluster":
        service, database = "", path or "0"
    if "#" in rest or "/" in login or not _is_named(family, service, database):
        raise ValueError(url)
    options = parse_qsl(query, keep_blank_values=True)
    of_sentinels = {name: value for name, value in options if name in _SENTINEL_LOGIN}
    for_data = urlencode([(name, value) for name, value in options if name not in _SENTINEL_LOGIN], quote_via=quote)
    before = f"rediss://{login}{at}" if tls else f"redis://{login}{at}"
    after = f"/{database or 0}{'?' if for_data else ''}{for_data}"
    # Sentinels have users of their own.
    head = before if family == "cluster" else before.removesuffix(login + at) + _login(of_sentinels)
    nodes = tuple(f"{head}{_with_port(host, _PORTS[family])}{after if family == 'cluster' else _without_database(after)}"
                  for host in hosts.split(","))  # fmt: skip
    for node in nodes:
        _check_node(node)
    return Address("cluster" if family == "cluster" else "sentinel", nodes, unquote(service), before, after)


def _check_node(url: str) -> None:
    """Raise ValueError unless user and password end where they seem to: an unescaped / or # in them moves the host."""
    parts = urlsplit(url)
    if parts.port == 0 or "@" in parts.path or parts.fragment:
        raise ValueError(url)


def _is_named(family: str, service: str, database: str) -> bool:
    if family == "cluster":
        return database == "0"
    return bool(service) and (not database or database.isdecimal())


def _with_port(host: str, port: int) -> str:
    if not host:
        raise ValueError(host)
    return host if urlsplit(f"//{host}").port else f"{host}:{port}"


def _login(options: dict[str, str]) -> str:
    name, password = (quote(options.get(option, ""), safe="") for option in _SENTINEL_LOGIN)
    return f"{name}:{password}@" if name or password else ""


def _without_database(after: str) -> str:
    return "/" + after[after.index("?") if "?" in after else len(after) :]
