"""Assertions outside of test modules explain themselves too, and the lab of tests/lua is at hand."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("tests.model.caller", "tests.model.machine", "tests.model.machine_managing", "tests.model.recount")

from ..lua.conftest import lab  # noqa: E402 - it imports what is registered

__all__ = ["lab"]
