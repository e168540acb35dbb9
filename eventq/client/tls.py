"""What a URL may say of TLS: the server shows who it is, by TLS 1.2 or newer. Less than that has to be wanted by name."""

from __future__ import annotations

import os
from ssl import TLSVersion
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["is_tls", "least_version", "unusable", "weakness"]

_LEAST: Final = TLSVersion.TLSv1_2
_REQUIREMENTS: Final = ("required", "optional", "none")
_VERSIONS: Final = frozenset(str(int(version)) for version in TLSVersion)
_PATHS: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")


def is_tls(node: str) -> bool:
    """Whether a connection to this node is encrypted."""
    return node.startswith("rediss:")


def least_version(options: Mapping[str, Any]) -> TLSVersion:
    """Return the oldest TLS that is spoken, whatever Python or OpenSSL of this machine would permit. Raises ValueError."""
    return TLSVersion(int(options.get("ssl_min_version", _LEAST)))


def unusable(node: str) -> str:
    """Return which of the TLS options in a node's URL cannot be used and why, '' where all can.

    Asked before anything connects: a file that is not there would pass for a server that is away.
    """
    if not is_tls(node):
        return ""
    for option, value in parse_qsl(urlsplit(node).query):
        if option == "ssl_min_version" and value not in _VERSIONS:
            return f"ssl_min_version must be {int(_LEAST)} (TLS 1.2) or {int(TLSVersion.TLSv1_3)} (TLS 1.3)"
        if option in _PATHS and not os.access(value, os.R_OK):
            return f"{option}={value}: there is no such file, or it may not be read"
    return ""


def weakness(node: str) -> str:
    """Return what in a node's URL makes its TLS worth little, '' where nothing does. Raises ValueError where it is unreadable.

    redis-py reads it, as it does when it connects: two readers may understand one URL in two ways.
    """
    if not is_tls(node):
        return ""
    options: dict[str, Any] = dict(parse_url(node))
    required = options.get("ssl_cert_reqs", "required")
    if required not in _REQUIREMENTS:  # quotes nothing of the URL: it may be a piece of a password
        raise ValueError("ssl_cert_reqs")
    if required == "none":
        return "ssl_cert_reqs=none accepts every certificate, so that anybody on the way can pose as the server"
    if not options.get("ssl_check_hostname", True):
        return "ssl_check_hostname=no accepts the certificate of every other host as well"
    if least_version(options) < _LEAST:
        return f"ssl_min_version={int(least_version(options))} permits less than TLS 1.2 ({int(_LEAST)})"
    return ""
