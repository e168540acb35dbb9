"""The embedded Valkey server behind ``embedded://`` URLs."""

from eventq.embedded.server import EmbeddedServer, start_embedded

__all__ = ["EmbeddedServer", "start_embedded"]
