"""The command line: `eventq`, `python -m eventq`. Needs the extra `cli`; `--version` works without."""

from __future__ import annotations

import sys
from importlib.util import find_spec

__all__ = ["main"]

_NEEDS = ("typer", "rich")


def main() -> int:
    """Run the command line on sys.argv and return the exit code: 0 a clean end, 1 a fatal error, 2 wrong usage."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from eventq.cli.runtime import version_line

        print(version_line())
        return 0
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        # One sentence that says all: the reader has just typed his first command.
        print(
            f'The eventq command needs {" and ".join(missing)}, which is not installed: pip install "eventq[cli]"',
            file=sys.stderr,
        )
        return 2
    from eventq.cli.app import app

    try:
        app(prog_name="eventq")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
