"""What several test modules of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .replicated import Replicated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..servers import ServerKind


@pytest.fixture(scope="module")
def shared_pair(server_kind: ServerKind) -> Iterator[Replicated]:
    """A primary and its replica, for all tests of a module."""
    with Replicated(server_kind) as pair:
        yield pair


@pytest.fixture
def pair(shared_pair: Replicated) -> Iterator[Replicated]:
    """The same, whole before and after each test."""
    yield shared_pair
    shared_pair.follow()
