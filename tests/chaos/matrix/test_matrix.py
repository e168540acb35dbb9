"""The fault matrix: every fault alone, the seven worst in pairs, and any three together; everybody at work is a real process."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

import pytest

from ..processes import choose_seed
from .kinds import can_be_together
from .playing import ALONE, KINDS, play
from .scene import Size

if TYPE_CHECKING:
    from pathlib import Path

    from ...servers import ServerKind

WORST = [key for key in ALONE if KINDS[key].number in (2, 8, 21, 27, 35, 41, 47) and not KINDS[key].confirmed]
PAIRS = [keys for keys in itertools.combinations(WORST, 2) if can_be_together([KINDS[key] for key in keys])]
#: Played by `make test` too; the others by `make chaos`.
QUICK = [key for key in ALONE if KINDS[key].number in (3, 21)]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("key", [key if key in QUICK else pytest.param(key, marks=pytest.mark.full) for key in ALONE])
async def test_a_fault_alone(server_kind: ServerKind, tmp_path: Path, key: str) -> None:
    """Struck once or a few times under load."""
    verdict = await play(server_kind, [KINDS[key]], choose_seed(), Size(), tmp_path)
    assert not verdict.problems, f"SEED={verdict.seed}: {verdict.problems}\n{verdict}"


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("keys", PAIRS, ids="+".join)
async def test_two_faults_together(server_kind: ServerKind, tmp_path: Path, keys: tuple[str, str]) -> None:
    """The worst, each with each."""
    verdict = await play(server_kind, [KINDS[key] for key in keys], choose_seed(), Size(), tmp_path)
    assert not verdict.problems, f"SEED={verdict.seed}: {verdict.problems}\n{verdict}"


@pytest.mark.full
@pytest.mark.timeout(180)
@pytest.mark.parametrize("number", range(10))
async def test_any_three_faults(server_kind: ServerKind, tmp_path: Path, number: int) -> None:
    """Any three that one server can bear."""
    seed = choose_seed()
    chance = random.Random(seed + number)
    while not can_be_together(kinds := [KINDS[key] for key in chance.sample(ALONE, 3)]):
        continue
    verdict = await play(server_kind, kinds, seed, Size(), tmp_path)
    assert not verdict.problems, f"SEED={seed}: {verdict.problems}\n{verdict}"
