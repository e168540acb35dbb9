"""Asking before something is destroyed."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from eventq.cli.runtime import UsageError
from eventq.cli.text import plain

__all__ = ["Consent", "ask", "need_consent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What --yes and --dry-run said."""

    yes: bool = False
    dry_run: bool = False


def need_consent(command: str, look: str = "look with --dry-run") -> None:
    """Check that there is somebody to ask. look: how to see what it would do. Raises UsageError."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(f"{command} destroys something and there is no terminal to ask on: say --yes, or {look}")


def ask(question: str, *, word: str = "") -> bool:
    """Ask on the terminal. word: what has to be typed; else yes or y. Anything else, and no answer, is no."""
    expected = f"type {plain(word)} to go on" if word else "y/N"
    print(f"{plain(question)} [{expected}] ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        print(file=sys.stderr)
    answer = line.strip()
    return answer == word if word else answer.lower() in ("y", "yes")
