"""The peers: how each is started, and why one is left out."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BULLMQ = HERE / "bullmq"


@dataclass(frozen=True, slots=True)
class Peer:
    """How to run a peer's driver."""

    name: str
    argv: tuple[str, ...]
    cwd: Path
    #: Who adds the jobs this peer drains; itself when None.
    producer: "Peer | None" = None

    def command(self, *args: object) -> list[str]:
        """The driver's command line."""
        return [*self.argv, *map(str, args)]


EVENTQ = Peer("eventq", (sys.executable, "-m", "benchmarks.drivers.eventq"), HERE.parent)
RAW = Peer("raw", (sys.executable, "-m", "benchmarks.drivers.raw"), HERE.parent, producer=EVENTQ)
NODE = Peer("bullmq", ("node", "driver.mjs"), BULLMQ)


def available(wanted: Sequence[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that can run here, in the order of their turns, and the reason for each that cannot."""
    peers: list[Peer] = []
    reasons: dict[str, str] = {}
    for peer in (EVENTQ, NODE, RAW):
        if peer.name not in wanted:
            continue
        reason = missing_node() if peer is NODE else missing_eventq()
        if reason:
            reasons[peer.name] = reason
        else:
            peers.append(peer)
    return peers, reasons


def missing_eventq() -> str | None:
    """Why eventq's own drivers cannot run, if so."""
    return None if importlib.util.find_spec("eventq") else "eventq is not installed in this environment"


def missing_node() -> str | None:
    """Why BullMQ cannot run, if so; installs it on first use."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    if missing:
        return f"no {' and no '.join(missing)} in PATH"
    wanted = json.loads((BULLMQ / "package.json").read_text())["dependencies"]
    if all((BULLMQ / "node_modules" / name).is_dir() for name in wanted):
        return None
    print("installing BullMQ with npm into benchmarks/bullmq/node_modules ...", file=sys.stderr, flush=True)
    # Without a lock file: it would record which registry answered.
    argv = ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(argv, cwd=BULLMQ, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        return f"npm install failed: {lines[-1] if lines else done.returncode}"
    return None


def versions(peers: Sequence[Peer]) -> dict[str, str]:
    """What ran, for the report."""
    found = {"python": sys.version.split()[0], "cores": str(os.cpu_count())}
    found["event loop"] = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio"
    if NODE in peers:
        node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
        found["node"] = node.stdout.strip().lstrip("v")
        found["bullmq"] = json.loads((BULLMQ / "node_modules/bullmq/package.json").read_text())["version"]
    return found
