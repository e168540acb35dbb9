"""Playing a scene from its first job to its verdict, and keeping the verdict for the report."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from ..ledger import Ledger, now_ns
from ..processes import ROOT
from . import faults_links, faults_processes, faults_server, faults_topologies
from .scene import Scene, Size
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from ...servers import ServerKind
    from .kinds import Kind

MODULES: Final = (faults_links, faults_processes, faults_server, faults_topologies)
KINDS: Final = {kind.key: kind for module in MODULES for kind in module.fault.kinds}
ALONE = sorted(KINDS)
REPORTS = ROOT / "build" / "chaos"


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
    verdict = Verdict([kind.key for kind in kinds], seed, f"{server_kind}, {scene.ground}", scene.persistence)
    try:
        async with scene.at_work():
            await strike(scene)
            await scene.heal()
            scene.healed_ns = now_ns()
            await scene.drain()
            await judge(scene, verdict)
    except BaseException as error:
        verdict.problems["the scene itself"] = f"{type(error).__name__}: {error!s:.500}"
        raise
    finally:
        verdict.seconds = round(time.monotonic() - began, 2)
        keep(verdict)
    print(verdict)
    return verdict


def keep(verdict: Verdict) -> None:
    """Write a verdict where the report finds it."""
    REPORTS.mkdir(parents=True, exist_ok=True)
    name = f"{'+'.join(verdict.faults)[:150]}-{verdict.seed}"
    (REPORTS / f"{name}.json").write_text(json.dumps(asdict(verdict)))
