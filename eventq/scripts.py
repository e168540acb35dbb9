"""The Lua scripts: found, their includes put in, their digest taken, their columns read from the header. Pure."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from eventq.errors import ScriptError

if TYPE_CHECKING:
    from eventq.keys import QueueKeys

_INCLUDE = re.compile(r"^ *-- include: (\w+)\n", re.MULTILINE)
_KEYS = re.compile(r"^--.* ?KEYS: ([a-z_ ]+(?:\n--   +[a-z_ ]+)*)$", re.MULTILINE)
_READS_ONLY = "#!lua flags=no-writes\n"
_replaced: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Script:
    """One script: its name, whole text, SHA-1 as Redis takes it, and the columns it needs as KEYS, in order."""

    name: str
    text: str
    sha: str
    columns: tuple[str, ...]

    @property
    def reads_only(self) -> bool:
        """Whether it says of itself that it changes nothing."""
        return self.text.startswith(_READS_ONLY)

    def keys(self, keys: QueueKeys) -> tuple[str, ...]:
        """Return the KEYS of this script for one queue."""
        return tuple(keys[column] for column in self.columns)


@cache
def load_script(name: str) -> Script:
    """Return the script of that name (the file's, without .lua)."""
    text = _read(f"{name}.lua")
    while _INCLUDE.search(text):  # an include may have includes of its own
        text = _INCLUDE.sub(lambda match: _replaced.get(match[1]) or _read("include", f"{match[1]}.lua"), text)
    found = _KEYS.search(text)
    if not found:
        raise ScriptError(f"script {name}: no KEYS line in its header")
    return Script(name, text, hashlib.sha1(text.encode()).hexdigest(), tuple(found[1].replace("--", "").split()))


def script_names() -> list[str]:
    """Return the names of all scripts, sorted."""
    folder = resources.files("eventq").joinpath("lua")
    return sorted(entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua"))


def replace_include(name: str, text: str) -> None:
    """Put another text in the place of an include, in this process: tests move the clock this way."""
    _replaced[name] = text
    load_script.cache_clear()


def _read(*path: str) -> str:
    return resources.files("eventq").joinpath("lua", *path).read_text(encoding="utf-8")
