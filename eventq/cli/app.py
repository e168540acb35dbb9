"""The commands as typer sees them: names, options, help. What they do is imported when one of them is called."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from eventq.cli.app_looking import add_looking
from eventq.cli.app_managing import add_managing
from eventq.cli.arguments import LOOKING, RUNNING, Format, Level, Prefix, QueueName, SigningKeysFile, Tag, Url
from eventq.cli.logs import LogFormat, LogLevel
from eventq.cli.plugins import PluginGroup
from eventq.cli.runtime import exit_codes, version_line

__all__ = ["app"]

app = typer.Typer(
    name="eventq",
    cls=PluginGroup,
    help="A typed job queue on Redis or Valkey, where every state change is also an event.",
    epilog="Exit codes: 0 done, 1 failed, not found or declined, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:OBJECT",
        help="A Worker, a JobQueue, or a function without arguments that returns one. The current folder is searched.",
    ),
]
Uvloop = Annotated[
    bool | None,
    typer.Option("--uvloop/--no-uvloop", help="The event loop. Default: uvloop when it is installed.", show_default=False),
]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version_line())
        raise typer.Exit


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    version: Annotated[
        bool,
        typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options before the command."""


@app.command(rich_help_panel=RUNNING)
def worker(
    target: Target,
    *,
    url: Url = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once. Default: what the code says.", show_default=False)
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when the line is empty.")] = False,
    max_jobs: Annotated[
        int | None, typer.Option(min=1, help="End after so many jobs. Default: never.", show_default=False)
    ] = None,
    log_level: Level = LogLevel.info,
    log_format: Format = LogFormat.text,
    uvloop: Uvloop = None,
    signing_keys: SigningKeysFile = None,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C; a second one skips the grace. Logs a line per job.

    Exit code 0: ended as asked. 1: a fatal error, such as a server that cannot be reached. 2: wrong usage.
    """
    with exit_codes():
        from eventq.cli.logs import set_up_logging
        from eventq.cli.work import WorkerOptions, run_worker

        set_up_logging(log_level, log_format)
        _set_url(url)
        _set_signing_keys(signing_keys)
        run_worker(target, WorkerOptions(concurrency=concurrency, burst=burst, max_jobs=max_jobs, uvloop=uvloop))


@app.command(rich_help_panel=RUNNING)
def scheduler(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    signing_keys: SigningKeysFile = None,
    log_level: Level = LogLevel.info,
    log_format: Format = LogFormat.text,
) -> None:
    """Do the upkeep of one queue alone: due jobs, lost leases, expiries. Every worker does it too; any number may."""
    with exit_codes():
        from eventq.cli.logs import set_up_logging
        from eventq.cli.opening import Place
        from eventq.cli.work import run_scheduler

        set_up_logging(log_level, log_format)
        run_scheduler(queue, Place(url=url, prefix=prefix, tag=tag, signing_keys=signing_keys))


@app.command(rich_help_panel=LOOKING)
def events(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    consumer: Annotated[
        str | None,
        typer.Option(help="Read under this name: go on where its last reader stopped.", show_default="from now on"),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", "-k", help="Only events of this kind; may be given again.", show_default="all"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    count: Annotated[int | None, typer.Option("--count", "-n", min=1, help="End after so many.", show_default="never")] = None,
) -> None:
    """Print a queue's events as they arrive, a line each, until Ctrl-C."""
    with exit_codes():
        from eventq.cli.follow import Following, follow
        from eventq.cli.opening import Place

        place = Place(url=url, prefix=prefix, tag=tag)
        follow(Following(queue=queue, place=place, consumer=consumer, kinds=tuple(kind or ()), as_json=as_json, count=count))


@app.command(rich_help_panel=RUNNING)
def dev(
    target: Target,
    *,
    path: Annotated[Path | None, typer.Option(help="Where the embedded server keeps its data.", show_default=".eventq")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Jobs at once.", show_default="what the code says")] = None,
    log_level: Level = LogLevel.info,
) -> None:
    """Run a worker on a server of its own, and start it again whenever a .py file under this folder changes."""
    with exit_codes():
        from eventq.cli.dev import develop

        options = [] if concurrency is None else [f"--concurrency={concurrency}"]
        develop(target, path, [*options, f"--log-level={log_level}"])


@app.command(rich_help_panel=RUNNING)
def demo(
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="Any folder.", show_default="Python's standard library")
    ] = None,
    *,
    url: Annotated[str | None, typer.Option(help="The server to use.", show_default="an embedded one, gone afterwards")] = None,
    uvloop: Uvloop = None,
) -> None:
    """Count and hash every file of a folder, one job each, and watch states, rates, times and failures by their events.

    Files that are not UTF-8 fail, are tried three times and end failed. The end is a check against the folder.
    """
    with exit_codes():
        from eventq.cli.demo import run_demo

        raise typer.Exit(run_demo(folder, url, uvloop=uvloop))


add_looking(app)
add_managing(app)


def _set_url(url: str | None) -> None:
    """Let --url win over EVENTQ_URL for queues whose code names no URL."""
    if url is not None:
        from eventq.client import Server

        Server(url)  # looks at the URL only, and says what is wrong with it
        os.environ["EVENTQ_URL"] = url


def _set_signing_keys(path: Path | None) -> None:
    """Let --signing-keys win over the environment for queues whose code names no keys."""
    if path is not None:
        from eventq.signing import KEYS_FILE, SigningKeys

        SigningKeys.from_file(path)  # says what is wrong with it
        os.environ[KEYS_FILE] = str(path)
