"""Sub-commands of other packages, by entry point group `eventq.cli`: a typer app or a click command each.

They are imported when they are called, or listed by --help. A broken one is reported on stderr and left out.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

import typer
from typer.core import TyperGroup

from eventq.cli.runtime import say

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PluginGroup"]

GROUP: Final = "eventq.cli"


class PluginGroup(TyperGroup):
    """The command `eventq` with its own sub-commands and those of other packages. Its own win."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names, ours first."""
        own = super().list_commands(ctx)
        return own + sorted(name for name in _entries() if name not in own and self.get_command(ctx, name) is not None)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by name, None for one that is not there or does not load."""
        command: Any = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in _entries():
            command = _load(_entries()[cmd_name])
            if command is not None:
                self.add_command(command, cmd_name)
        return command


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> Any:
    """Return the command of an entry point; None, and a line on stderr, when it is broken."""
    try:
        found = entry.load()
        if isinstance(found, typer.Typer):
            command: Any = typer.main.get_command(found)
            command.name = entry.name  # an app of one command has that command's name
            return command
        if callable(getattr(found, "main", None)):
            return _foreign(entry.name, found)
        raise TypeError(f"a {type(found).__name__} is neither a typer app nor a click command")
    except Exception as error:  # whatever somebody else's package does wrong, our commands work
        say(f"the command {entry.name!r} ({entry.value}) is left out: {type(error).__name__}: {error}")
        return None


def _foreign(name: str, command: Any) -> Any:
    """Return a command that hands its arguments on to one of click, perhaps of another click than typer's own."""
    wrapper = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    settings: dict[str, Any] = {
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "ignore_unknown_options": True,
        "help_option_names": [],
    }
    short: Callable[[], str] | None = getattr(command, "get_short_help_str", None)

    @wrapper.command(name, context_settings=settings, help=short() if short else None)
    def run(ctx: typer.Context) -> None:  # pyright: ignore[reportUnusedFunction]
        command.main(args=list(ctx.args), prog_name=f"eventq {name}")

    return typer.main.get_command(wrapper)
