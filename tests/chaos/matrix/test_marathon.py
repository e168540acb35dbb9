"""Half a million jobs, while faults strike one after the other, whatever comes: nothing lost, nothing twice, all of it told."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ..processes import choose_seed
from .actors import MIX
from .kinds import can_be_together
from .playing import ALONE, KINDS, play
from .scene import Scene, Size

if TYPE_CHECKING:
    from pathlib import Path

    from ...servers import ServerKind
    from .kinds import Kind

#: Not those that make a server forget: what it forgot no checker can count.
ANY = [key for key in ALONE if not (KINDS[key].lossy or KINDS[key].trims or KINDS[key].small_disk)]
PER_ROUND = 25_000
#: So many kinds of faults in a round.
KINDS_PER_ROUND = 8


async def one_after_the_other(scene: Scene) -> None:
    """Let faults of the round strike, by turns at random, until the producers are done."""
    scene.is_restless = True
    while scene.crew.of("producer"):
        await scene.chance.choice(scene.faults).strike(scene)
        scene.strikes += 1
        await scene.pause(0.1, 0.6)


@pytest.mark.full
@pytest.mark.timeout(7200)
async def test_a_marathon(server_kind: ServerKind, tmp_path: Path) -> None:
    """JOBS says how many, half a million by default; rounds of 25,000, each under eight kinds of faults picked at random."""
    jobs, seed = int(os.environ.get("JOBS") or 500_000), choose_seed()
    chance = random.Random(seed)
    size = replace(Size(), jobs=min(jobs, PER_ROUND), seconds=10.0, slots=40, group=100, mix={**MIX, "quick": 300, "slow": 6})
    verdicts = []
    for number in range(-(-jobs // PER_ROUND)):
        kinds = pick(chance)
        directory = tmp_path / str(number)
        directory.mkdir()
        verdict = await play(server_kind, kinds, chance.randrange(2**32), size, directory, strike=one_after_the_other)
        assert not verdict.problems, f"SEED={seed}, round {number}: {verdict.problems}\n{verdict}"
        verdicts.append(verdict)
    sums = {
        name: sum(getattr(verdict, name) for verdict in verdicts)
        for name in ("jobs", "runs", "strikes", "lost", "stuck", "double_outcomes", "stale_offered", "stale_accepted", "events")
    }
    sums |= {
        name: sum(getattr(verdict, name) for verdict in verdicts)
        for name in ("uncounted", "spans", "spans_missing", "totals_wrong")
    }
    print(f"Marathon ({server_kind}, SEED={seed}): {sums}")
    assert sums["jobs"] >= jobs


def pick(chance: random.Random) -> list[Kind]:
    """Return some kinds that one server can bear."""
    while not can_be_together(kinds := [KINDS[key] for key in chance.sample(ANY, KINDS_PER_ROUND)]):
        continue
    return kinds
