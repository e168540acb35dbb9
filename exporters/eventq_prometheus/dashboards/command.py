"""`eventq dashboards FOLDER`: the dashboards as files, to import or to provision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eventq.cli.runtime import UsageError, exit_codes

__all__ = ["app"]

app = typer.Typer(name="dashboards", add_completion=False, pretty_exceptions_enable=False)


@app.command()
def dashboards(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write them; made if it is not there.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there and differ.")] = False,
) -> None:
    """Write the Grafana dashboards of the Prometheus exporter into a folder, a JSON file each.

    Exit code 0: they are there. 2: wrong usage, or files there differ, and nothing was written.
    """
    with exit_codes():
        from eventq_prometheus.dashboards import files

        texts = {folder / Path(path).name: text for path, text in files().items()}
        try:
            _write(folder, texts, force=force)
        except (OSError, UnicodeError) as error:
            where, reason = (error.filename, error.strerror) if isinstance(error, OSError) else (folder, error)
            raise UsageError(f"{where}: {reason}") from error


def _write(folder: Path, texts: dict[Path, str], *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; the dashboards are several and need a folder")
    differing = [path.name for path, text in texts.items() if path.exists() and path.read_bytes() != text.encode()]
    if differing and not force:
        listed = ", ".join(differing)
        raise UsageError(f"{folder}: {listed} would be overwritten, with other content; choose another folder, or use --force")
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_bytes(text.encode())
        typer.echo(path)
