"""`eventq exporter`: Prometheus metrics of all queues of a server, in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventq.cli.arguments import Format, Level, Prefix, Url
from eventq.cli.logs import LogFormat, LogLevel, set_up_logging
from eventq.cli.runtime import UsageError, exit_codes, run_async, until_stopped

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("exporter")
def exporter(
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", help="Only this queue; may be given again. A missing one is waited for.", show_default="all"
        ),
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to answer.")] = "127.0.0.1:10650",
    web_config: Annotated[
        Path | None,
        typer.Option(
            "--web-config-file",
            metavar="FILE",
            help="TLS and basic auth, as Prometheus' own exporters take them.",
            show_default="none",
        ),
    ] = None,
    consumer: Annotated[
        str, typer.Option(help="The name that place and counters are saved under. A second process with it stands by.")
    ] = "prometheus",
    histograms_by_name: Annotated[
        bool, typer.Option("--histograms-by-name", help="Histograms for each job name too: some 90 series a name.")
    ] = False,
    per_worker: Annotated[bool, typer.Option("--per-worker", help="Series for each worker, while it lives.")] = False,
    log_level: Level = LogLevel.info,
    log_format: Format = LogFormat.text,
) -> None:
    """Serve Prometheus metrics of every queue until SIGTERM or Ctrl-C: counters that survive it, histograms, depths, workers.

    Exit code 0: ended as asked. 1: the server cannot be reached or used. 2: wrong usage, a port that is taken.
    """
    with exit_codes():
        try:
            from eventq_prometheus.running import Options, run_exporter
        except ModuleNotFoundError as error:
            raise UsageError(f'{error.name} is not installed; pip install "eventq[prometheus]"') from error

        set_up_logging(log_level, log_format)
        options = Options(
            url=url,
            prefix=prefix,
            queues=tuple(queue) if queue else None,
            listen=listen,
            web_config=web_config,
            consumer=consumer,
            histograms_by_name=histograms_by_name,
            per_worker=per_worker,
        )
        run_async(lambda: until_stopped(run_exporter(options)))
