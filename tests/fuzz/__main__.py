"""`make fuzz`: the same targets under a fuzzer that sees which lines an input reached. `python -m tests.fuzz [SECONDS] [TARGET]`.

A process per target, SECONDS in all; an input that breaks one is printed by the fuzzer, and the exit code is 1.
"""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from .mutating import mutate

if TYPE_CHECKING:
    from .targets import Target

#: Bytes of one input at most.
_LONGEST = 8192


def _targets() -> list[Target]:
    from .targets import all_targets

    return all_targets()


def _all(seconds: float, wanted: str) -> int:
    """Fuzz each target whose name holds `wanted` in a process of its own; return how many broke."""
    names = [target.name for target in _targets() if wanted in target.name]
    each, broken, total = max(1, round(seconds / max(1, len(names)))), 0, 0
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--one", name, str(each)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        runs = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("Done ")]
        total += sum(runs)
        print(f"{name:28} {sum(runs):>9,} executions {'' if done.returncode == 0 else 'BROKEN'}", flush=True)
        if done.returncode != 0:
            broken += 1
            print(done.stdout[-3000:] + done.stderr[-3000:], flush=True)
    print(f"{total:,} executions of {len(names)} targets, {broken} broken")
    return broken


def _one(name: str, seconds: str) -> None:
    """Fuzz one target; ends the process."""
    atheris: Any = importlib.import_module("atheris")  # in the dependency group fuzz only
    logging.disable(logging.CRITICAL)
    with atheris.instrument_imports(include=["eventq", "eventq_prometheus", "eventq_opentelemetry", "cronsim"]):
        [target] = [each for each in _targets() if each.name == name]

    def run(data: bytes) -> None:
        target(data)

    def change(data: bytes, most: int, seed: int) -> bytes:
        """Half of the time our own changes, of what the fuzzer found worth keeping; else the fuzzer's."""
        if seed % 2:
            return bytes(atheris.Mutate(data, most))
        return mutate((data,), Random(seed).randrange)[:most]

    folder = Path(tempfile.mkdtemp(prefix="eventq-fuzz-corpus-"))
    for index, seed in enumerate(target.seeds):
        (folder / str(index)).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-artifact_prefix=/tmp/",
    ]
    arguments: list[Any] = ["fuzz", *options, str(folder)]
    atheris.Setup(arguments, run, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(*sys.argv[2:4])
    else:
        sys.exit(1 if _all(float((sys.argv[1:2] or ["60"])[0]), " ".join(sys.argv[2:])) else 0)
