"""`eventq tracer`: spans of every job, in a process of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from eventq.cli.arguments import Format, Level, Prefix, Url
from eventq.cli.logs import LogFormat, LogLevel, set_up_logging
from eventq.cli.runtime import UsageError, exit_codes, leave_stragglers, run_async, until_stopped

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["app"]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command("tracer")
def tracer(
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    queue: Annotated[
        list[str] | None,
        typer.Option(
            "--queue", "-q", help="Only this queue; may be given again. A missing one is waited for.", show_default="all"
        ),
    ] = None,
    consumer: Annotated[
        str, typer.Option(help="The name that its place is saved under. A second process with it stands by.")
    ] = "opentelemetry",
    queued: Annotated[bool, typer.Option("--queued/--no-queued", help="A span for the time a job stood in line, too.")] = True,
    slow: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Keep runs that took so long though they are not sampled.", show_default="none"),
    ] = None,
    messages: Annotated[
        bool,
        typer.Option("--exception-messages/--no-exception-messages", help="Messages and stack traces of exceptions."),
    ] = True,
    log_level: Level = LogLevel.info,
    log_format: Format = LogFormat.text,
) -> None:
    """Send spans of every job by OTLP until SIGTERM or Ctrl-C. Where to, OpenTelemetry's variables say:
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, ...

    Exit code 0: ended as asked. 1: the server cannot be reached or used. 2: wrong usage.
    """
    with exit_codes():
        try:
            from eventq_opentelemetry.running import Options, run_tracer
        except ModuleNotFoundError as error:
            raise UsageError(f'{error.name} is not installed; pip install "eventq[opentelemetry]"') from error

        set_up_logging(log_level, log_format)
        options = Options(
            url=url,
            prefix=prefix,
            queues=tuple(queue) if queue else None,
            consumer=consumer,
            queued=queued,
            slow=slow,
            exception_messages=messages,
        )
        run_async(lambda: _until_stopped(run_tracer(options)))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Await the work or the signal to stop. A request that nobody answers is left alone: whoever goes on makes it again."""
    try:
        await until_stopped(work)
    except Exception as error:
        await leave_stragglers(error, what="exporters")
        raise
    await leave_stragglers(None, what="exporters")
