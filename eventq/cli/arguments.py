"""Arguments and options that several commands share, as typer takes them, and the parts of --help they stand in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from eventq.cli.logs import LogFormat, LogLevel

RUNNING: Final = "Running"
LOOKING: Final = "Looking"
MANAGING: Final = "Managing"

Url = Annotated[
    str | None,
    typer.Option(
        help="The server: redis://, rediss://, unix://, embedded:///path. Default: EVENTQ_URL, then redis://localhost:6379/0.",
        show_default=False,
    ),
]
QueueName = Annotated[str, typer.Argument(metavar="QUEUE", help="The queue's name.")]
Prefix = Annotated[str, typer.Option(help="What the keys of the queues begin with.")]
Tag = Annotated[
    str | None,
    typer.Option(help="The queue's Cluster tag. Default: as the server's list of queues says.", show_default=False),
]
SigningKeysFile = Annotated[
    Path | None,
    typer.Option(
        "--signing-keys",
        metavar="FILE",
        help="The queue's signing keys, a line `ID KEY` each. Default: EVENTQ_SIGNING_KEYS_FILE, then none.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="For programs: one JSON document.")]
JsonLines = Annotated[bool, typer.Option("--json", help="For programs: one JSON object per line.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")]
Level = Annotated[LogLevel, typer.Option("--log-level", help="From what level on to log, on stderr.")]
Format = Annotated[LogFormat, typer.Option("--log-format", help="Lines for people, or one JSON object each.")]
