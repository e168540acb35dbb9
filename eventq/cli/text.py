"""What others wrote, made safe to show: no control characters, no terminal sequences, one line."""

from __future__ import annotations

import unicodedata

__all__ = ["age", "counted", "number", "plain", "quoted", "seconds", "shorten"]


def plain(text: str) -> str:
    """Return text in which what does not print stands as its escape: ``\\x1b``, ``\\n``, ``\\u202e``, ``\\udcff``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_shown(char) else _escape(char) for char in text)


def quoted(value: object) -> str:
    """Return a value as it stands in `key=value`: plain, in double quotes where it would not read as one word."""
    text = plain(str(value))
    if text and not any(char in text for char in ' "='):
        return text
    return '"' + text.replace('"', '\\"') + '"'


def shorten(text: str, most: int) -> str:
    """Return text of at most so many characters, its beginning."""
    return text if len(text) <= most else text[: most - 1] + "…"


def seconds(value: float) -> str:
    """Return a duration for people: `820 ms`, `1.94 s`, `95 s`."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def age(value: float) -> str:
    """Return how long something is, coarsely: `12 s`, `5 min`, `3.2 h`, `7 d`."""
    if value < 120:
        return f"{max(0.0, value):.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    in_units, unit = (value / 3600, "h") if value < 172_800 else (value / 86_400, "d")
    return f"{in_units:.1f}".removesuffix(".0") + f" {unit}"


def number(value: float) -> str:
    """Return a count for people: `12,345`."""
    return f"{value:,.0f}"


def counted(count: int, what: str) -> str:
    """Return a count of things for people, in the plural where it is one: `1 job`, `2 failed jobs`."""
    return f"{number(count)} {what}{'' if count == 1 else 's'}"


def _is_shown(char: str) -> bool:
    # isprintable() takes every space but the ASCII one for unprintable; the others are harmless.
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
