"""An exporter from its options to its end, as the command runs it; and one in a thread, for programs without an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from eventq_prometheus.exporter import CONSUMER, PrometheusExporter
from eventq_prometheus.serving import DEFAULT_LISTEN, bind, parse_listen, serve
from eventq_prometheus.web_config import WebConfig, read_web_config

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["Options", "run_exporter", "run_in_thread"]

log: Final = logging.getLogger("eventq.exporter")

#: Seconds it may take to learn how many job names there are, before it says how many series that makes.
_FORESEE: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was said on the command line."""

    url: str | None = None
    prefix: str = "eventq"
    queues: tuple[str, ...] | None = None
    listen: str = DEFAULT_LISTEN
    web_config: Path | None = None
    consumer: str = CONSUMER
    histograms_by_name: bool = False
    per_worker: bool = False


async def run_exporter(options: Options) -> None:
    """Export until cancelled. Raises ConfigurationError, QueueUnavailable, ServerRefused: what is wrong, in one line."""
    address = parse_listen(options.listen)
    web = WebConfig() if options.web_config is None else read_web_config(options.web_config)
    exporter = PrometheusExporter(
        url=options.url,
        prefix=options.prefix,
        queues=options.queues,
        consumer=options.consumer,
        histograms_by_name=options.histograms_by_name,
        per_worker=options.per_worker,
    )
    with contextlib.closing(bind(address)) as sock:
        async with exporter:
            scheme = "http" if web.tls is None else "https"
            place = f"{scheme}://{str(address).rpartition(':')[0]}:{sock.getsockname()[1]}/metrics"
            await exporter.caught_up(_FORESEE)
            now, most = exporter.series
            log.info("%s of %s: about %d series now, %d at most with these queues", place, exporter.where, now, most)
            await serve(exporter, sock, web)


@contextlib.contextmanager
def run_in_thread(exporter: PrometheusExporter) -> Generator[PrometheusExporter]:
    """Run an exporter in a thread of its own while the block runs: for WSGI and for programs without an event loop.

    Raises what opening raises.
    """
    opened: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        ended = asyncio.Event()
        async with exporter:
            opened.set_result((asyncio.get_running_loop(), ended))
            await ended.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # it is for whoever waits for the opening, or for the log
            if opened.done():
                log.exception("the exporter ended")
            else:
                opened.set_exception(error)

    thread = threading.Thread(target=run, name="eventq-exporter", daemon=True)
    thread.start()
    loop, ended = opened.result()
    try:
        yield exporter
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
