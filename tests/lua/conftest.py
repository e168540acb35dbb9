"""A queue to call scripts on by hand; whatever a test does to it, its invariants are checked afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .invariants import check_queue
from .lab import Clock, Lab


@pytest.fixture
def lab(node_url: str, queue_name: str, clock: Clock) -> Iterator[Lab]:
    """A queue of its own. After the test every invariant is checked, unless it set `lab.sound = False`."""
    lab = Lab(node_url, queue_name, clock)
    try:
        yield lab
        if lab.sound:
            check_queue(lab)
    finally:
        lab.close()
