"""Every state of a few small worlds: no promise breaks, every job ends, and without any one of the guards something does break."""

from __future__ import annotations

import pytest

from .explore import explore
from .world import GUARDS, World
from .worlds import FOUND_IN, LARGE, SMALL


def check_all(world: World) -> None:
    """Look at every state of a world."""
    found = explore(world)
    assert not found.violation, str(found)
    print(f"model explored: {found}")


@pytest.mark.parametrize("world", SMALL, ids=lambda world: world.name)
def test_every_promise_holds(world: World) -> None:
    """Whatever order messages come in, whoever is killed, frozen or late."""
    check_all(world)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("world", LARGE, ids=lambda world: world.name)
def test_every_promise_holds_with_two_workers_and_two_jobs(world: World) -> None:
    """The same, where there is more to go wrong."""
    check_all(world)


@pytest.mark.parametrize("guard", GUARDS)
def test_without_a_guard_a_promise_breaks(guard: str) -> None:
    """One thing that eventq does, left out: the shortest way to what goes wrong is printed."""
    found = explore(FOUND_IN[guard], frozenset({guard}))
    assert found.violation, f"{GUARDS[guard]}: without that nothing goes wrong in {found}"
    assert found.trace
    print(f"guard needed: {GUARDS[guard]}\n{found}")
