"""The model's server does what the scripts do: random ways through its worlds, taken on a real server step by step."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pytest

from ...lua.invariants import check_queue
from ...lua.lab import Clock, Lab
from .reality import Reality
from .steps import Model
from .telling import tell
from .world import Faults, State, World

STEPS = 45
WORLDS = (
    World("everything", Faults(kills=1, freezes=1, losses=4, delays=3, errors=2, closes=1)),
    World("two slots", Faults(losses=3, delays=3, errors=3, closes=1), workers=1, slots=2, rude=True),
    World("quiet", Faults(losses=3, pauses=1, closes=1, errors=1), lease=3, quiet=True),
)
#: How likely a step is beside others: time has to pass for leases to end, and most misfortunes end a way before it comes far.
WEIGHTS = {"tick": 12, "sweep": 12, "freeze": 3, "old": 1, "stray": 1} | dict.fromkeys(
    ("wake", "kill", "close", "pause", "end of grace", "late tick", "complete"), 2
)


def choose(chance: random.Random, model: Model, state: State) -> tuple[tuple[Any, ...], State] | None:
    """Return one of the steps; None where there is none, or where the model does not say which of two jobs comes first."""
    steps = [(what, after) for what, after in model.steps(state) if what[0] not in ("replicate", "failover")]
    if not steps:
        return None
    weights = [WEIGHTS.get(what[0], 6) for what, _ in steps]
    what, after = chance.choices(steps, weights)[0]
    leases = [job.lease for job in state.jobs if job.lease == 0]
    return None if what[0] == "sweep" and len(leases) > 1 else (what, after)


def walk(lab: Lab, world: World, seed: int, told: Counter[str]) -> None:
    """Go one way, and compare after every step."""
    chance, model, state, way = random.Random(seed), Model(world), world.start, list[str]()
    reality = Reality(lab, world)
    reality.check(state)
    for _ in range(STEPS):
        step = choose(chance, model, state)
        if step is None:
            break
        what, after = step
        way.append(tell(what))
        try:
            reality.take(what, state, after)
            reality.check(after)
        except AssertionError as error:
            steps = "\n".join(f"{number:3}. {line}" for number, line in enumerate(way, 1))
            raise AssertionError(
                f"SEED={seed} {world.name}: the server is not where the model is after\n{steps}\n{error}"
            ) from error
        told[what[0]] += 1
        state = after
    check_queue(lab)


def walk_many(world: World, ways: int, url: str, queue_name: str, clock: Clock, default: int | None = None) -> None:
    """Go so many ways, each on a queue of its own. default: the seed where none is asked for; a random one if None."""
    seed = int(os.environ.get("SEED") or (default or random.SystemRandom().randrange(2**32)))
    told: Counter[str] = Counter()
    for number in range(ways):
        lab = Lab(url, f"{queue_name}-{number}", clock)
        try:
            walk(lab, world, seed + number, told)
        finally:
            lab.close()
    print(f"model and scripts agree: {ways} ways, {told.total():,} steps, seed {seed}: {dict(told.most_common())}")
    assert told["execute"] and told["tick"]


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_model_does_what_the_scripts_do(world: World, node_url: str, queue_name: str, clock: Clock) -> None:
    """A few ways, the same each time: it is the scripts that change. SEED= goes others."""
    walk_many(world, 8, node_url, queue_name, clock, default=902026229)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_model_does_what_the_scripts_do_at_length(world: World, node_url: str, queue_name: str, clock: Clock) -> None:
    """The same, five hundred times."""
    walk_many(world, 500, node_url, queue_name, clock)
