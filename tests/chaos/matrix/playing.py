"""Playing a scene from its first job to its verdict, and keeping the verdict for the report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from ..ledger import Ledger, now_ns
from ..processes import ROOT
from . import faults_links, faults_processes, faults_server
from .kinds import PERSISTENCE, Kind
from .scene import Scene, Size
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ...servers import ServerKind

KINDS: Final = {kind.key: kind for module in (faults_links, faults_processes, faults_server) for kind in module.fault.kinds}
ALONE = sorted(KINDS)
REPORTS = ROOT / "build" / "chaos"


def can_be_together(kinds: Sequence[Kind]) -> bool:
    """Whether one server can be all that these faults need."""
    return bool(set.intersection(*(set(kind.persistence or PERSISTENCE) for kind in kinds)))


async def play(
    server_kind: ServerKind,
    kinds: Sequence[Kind],
    seed: int,
    size: Size,
    directory: Path,
    *,
    strike: Callable[[Scene], Awaitable[None]] = Scene.strike_all,
) -> Verdict:
    """Play one scene; return what came of it, which is kept in build/chaos as well."""
    began = time.monotonic()
    scene = Scene(server_kind, Ledger(directory / "ledger"), kinds, seed, size)
    async with scene.at_work():
        await strike(scene)
        await scene.heal()
        scene.healed_ns = now_ns()
        await scene.drain()
        verdict = await judge(scene)
    verdict.seconds = round(time.monotonic() - began, 2)
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{'+'.join(verdict.faults)}-{seed}.json").write_text(json.dumps(asdict(verdict)))
    print(verdict)
    return verdict
