"""The model: whatever several writers do, in whatever order calls arrive, the queue is what the model says."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from eventq.operations import managing

from ..lua.lab import Clock
from ..servers import TestServer
from .caller import Bench
from .machine_managing import ManagedMachine


@pytest.fixture
def bench(server: TestServer, queue_name: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """What the examples share. Operations go in steps of three jobs, so that small queues take several."""
    monkeypatch.setattr(managing, "SLICE_JOBS", 3)
    made = Bench(server.unix_url, queue_name, clock)
    yield made
    made.close()


def explore(bench: Bench, examples: int, steps: int, part: int = 0) -> None:
    """Run so many examples of so many steps; print what was done, and the seed that does it again (each part adds its number)."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(2**32))

    @hypothesis.seed(seed + part)
    def machine() -> ManagedMachine:
        return ManagedMachine(bench)

    began, used = time.monotonic(), time.process_time()
    print(f"model: seed {seed}; again with SEED={seed}")
    run_state_machine_as_test(
        machine,  # type: ignore[arg-type]
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            # A step is several round trips to a real server: slow is what they are.
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example, HealthCheck.data_too_large],
        ),
    )
    took = f"{time.monotonic() - began:.1f} s, {time.process_time() - used:.1f} s of CPU here"
    tally = ", ".join(f"{count:,} {what}" for what, count in sorted(bench.tally.items()))
    print(f"model agrees with the server: {tally}; {took}, seed {seed}")
    print(f"model saw these events: {', '.join(f'{count:,} {kind}' for kind, count in sorted(bench.events.items()))}")
    assert 0 == bench.tally["stale accepted"] < bench.tally["stale offered"]


@pytest.mark.timeout(300)
def test_the_queue_is_what_the_model_says(bench: Bench) -> None:
    """200 examples of 50 steps: after each call every job, place, token, counter and event is as it must be."""
    explore(bench, 200, 50)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(50))
def test_the_queue_is_what_the_model_says_at_length(bench: Bench, part: int) -> None:
    """The same with 5,000 examples of 100 steps, in fifty parts with seeds of their own."""
    explore(bench, 100, 100, part)
