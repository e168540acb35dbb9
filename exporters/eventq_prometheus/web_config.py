"""The web configuration file that Prometheus' own exporters take: TLS, basic auth, response headers.

Format: https://github.com/prometheus/exporter-toolkit/blob/master/docs/web-configuration.md. What is not understood is refused: a
line that was meant to protect and did nothing would be worse than none.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import bcrypt
import yaml

from eventq import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BasicAuth", "WebConfig", "read_web_config"]

_VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_CLIENTS: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_TLS_KEYS: Final = frozenset({"cert_file", "key_file", "client_auth_type", "client_ca_file", "min_version", "max_version"})
_HEADERS: Final = frozenset(
    {
        "Strict-Transport-Security",
        "X-Content-Type-Options",
        "X-Frame-Options",
        "X-XSS-Protection",
        "Content-Security-Policy",
        "Cache-Control",
    }
)
#: Passwords that were right; a check of bcrypt takes a tenth of a second on purpose.
_REMEMBERED: Final = 100


@dataclass(frozen=True, slots=True)
class WebConfig:
    """What the file says. `tls` None: plain HTTP. `users`: name -> bcrypt hash; empty: nobody is asked."""

    tls: ssl.SSLContext | None = None
    users: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


def read_web_config(path: Path) -> WebConfig:
    """Return what the file says. Raises ConfigurationError: what, which value, in one line."""
    try:
        told: Any = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"web config {path}: cannot be read: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that is none
        raise ConfigurationError(f"web config {path}: is no YAML: {' '.join(str(error).split())}") from error
    sections = _mapping(path, "the file", told, {"tls_server_config", "http_server_config", "basic_auth_users"})
    http = _mapping(path, "http_server_config", sections.get("http_server_config"), {"http2", "headers"})
    headers = _mapping(path, "headers", http.get("headers"), _HEADERS)
    return WebConfig(
        _tls(path, sections.get("tls_server_config")),
        _users(path, sections.get("basic_auth_users")),
        {name: _header(path, name, value) for name, value in headers.items()},
    )


def _header(path: Path, name: str, value: Any) -> str:
    text = str(value)
    if not text.isprintable() or not text.isascii():
        raise ConfigurationError(f"web config {path}: headers: the value of {name} must be printable ASCII on one line")
    return text


def _mapping(path: Path, what: str, told: Any, known: set[str] | frozenset[str]) -> dict[str, Any]:
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise ConfigurationError(f"web config {path}: {what} must be a mapping, not {type(told).__name__}")
    section = {str(key): value for key, value in cast("dict[object, Any]", told).items()}
    if unknown := sorted(section.keys() - known):
        raise ConfigurationError(
            f"web config {path}: {what}: {', '.join(unknown)} is not supported; {', '.join(sorted(known))} are"
        )
    return section


def _users(path: Path, told: Any) -> dict[str, bytes]:
    if told is None:
        return {}
    if not isinstance(told, dict) or not told:
        raise ConfigurationError(f"web config {path}: basic_auth_users must map names to bcrypt hashes")
    users: dict[str, bytes] = {}
    for name, hashed in cast("dict[object, object]", told).items():
        raw = str(hashed).encode()
        try:
            bcrypt.checkpw(b"", raw)
        except ValueError:
            raise ConfigurationError(f"web config {path}: basic_auth_users: the password of {name!r} is no bcrypt hash") from None
        users[str(name)] = raw
    return users


def _tls(path: Path, told: Any) -> ssl.SSLContext | None:
    if told is None:
        return None
    section = _mapping(path, "tls_server_config", told, _TLS_KEYS)
    for key in ("cert_file", "key_file"):
        if not section.get(key):
            raise ConfigurationError(f"web config {path}: tls_server_config: {key} is missing")
    files = {key: path.parent / str(section[key]) for key in ("cert_file", "key_file", "client_ca_file") if section.get(key)}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _one_of(path, "min_version", section.get("min_version", "TLS12"), _VERSIONS)
    context.maximum_version = _one_of(path, "max_version", section.get("max_version", "TLS13"), _VERSIONS)
    client = section.get("client_auth_type", "NoClientCert")
    context.verify_mode = _one_of(path, "client_auth_type", client, _CLIENTS)
    if (context.verify_mode is not ssl.CERT_NONE) is not ("client_ca_file" in files):
        raise ConfigurationError(f"web config {path}: client_auth_type {client} and client_ca_file go together")
    try:
        context.load_cert_chain(files["cert_file"], files["key_file"])
        if "client_ca_file" in files:
            context.load_verify_locations(files["client_ca_file"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"web config {path}: certificate or key cannot be used: {error}") from error
    return context


def _one_of(path: Path, what: str, value: Any, known: Mapping[str, Any]) -> Any:
    if not isinstance(value, str) or value not in known:
        raise ConfigurationError(f"web config {path}: {what} {value!r}: must be one of {', '.join(known)}")
    return known[value]


class BasicAuth:
    """Checks the Authorization header. Passwords are compared by bcrypt, in a thread; those that were right are remembered."""

    def __init__(self, users: Mapping[str, bytes]) -> None:
        self._users = users
        self._right: set[bytes] = set()
        #: For names that there are not, so that the time to answer does not tell which there are.
        self._nobody = next(iter(users.values()), b"")

    async def allows(self, header: str | None) -> bool:
        """Whether whoever sends this header may read."""
        if not self._users:
            return True
        scheme, _, told = (header or "").partition(" ")
        try:
            name, colon, password = base64.b64decode(told, validate=True).decode().partition(":")
        except ValueError:  # no Base64, or no text
            return False
        if scheme.lower() != "basic" or not colon:
            return False
        hashed = self._users.get(name)
        digest = hashlib.sha256(b"\0".join([name.encode(), password.encode(), hashed or b""])).digest()
        if digest in self._right:
            return True
        is_right = await asyncio.to_thread(bcrypt.checkpw, password.encode()[:72], hashed or self._nobody)
        if not is_right or hashed is None:
            return False
        if len(self._right) >= _REMEMBERED:
            self._right.clear()
        self._right.add(digest)
        return True
