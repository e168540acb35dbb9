"""The Redis client: URLs, connections, runners. The only place that imports redis."""

from eventq.client.clock import boot_time
from eventq.client.confirming import ConfirmingRunner, SyncConfirmingRunner
from eventq.client.runner import AsyncRunner
from eventq.client.server import Server
from eventq.client.sync_runner import SyncRunner

__all__ = ["AsyncRunner", "ConfirmingRunner", "Server", "SyncConfirmingRunner", "SyncRunner", "boot_time"]
