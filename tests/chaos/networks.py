"""A network of its own for some processes, joined to the others by one link that can be cut: nobody is told, packets just go nowhere."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


def namespace_missing_reason() -> str | None:
    """Say what it takes to make networks; None where that is there."""
    if os.geteuid() != 0:
        return "no right to make network namespaces (run as root)"
    if shutil.which("ip") is None:
        return "no ip in PATH (Debian: apt-get install iproute2)"
    return None


class Network:
    """A network namespace and a link to it. The side that stays has `address`, which both can reach."""

    def __init__(self) -> None:
        number = os.getpid() % 16_000
        self.name = f"eventq-{number}"
        self._here, self._there = f"eqa{number}", f"eqb{number}"
        first = f"10.231.{number // 64}."
        self.address, self._other = first + str(number % 64 * 4 + 1), first + str(number % 64 * 4 + 2)

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        try:
            _ip("link", "add", self._here, "type", "veth", "peer", "name", self._there, "netns", self.name)
            _ip("addr", "add", f"{self.address}/30", "dev", self._here)
            _ip("link", "set", self._here, "up")
            self._inside("addr", "add", f"{self._other}/30", "dev", self._there)
            self.heal()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        _ip("netns", "del", self.name)  # and with it the link, both ends

    @property
    def command(self) -> list[str]:
        """What a command begins with that is to run inside."""
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Let nothing through any more, in either direction."""
        self._inside("link", "set", self._there, "down")

    def heal(self) -> None:
        """Let everything through again."""
        self._inside("link", "set", self._there, "up")

    def _inside(self, *words: str) -> None:
        _ip("-n", self.name, *words)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr}"
