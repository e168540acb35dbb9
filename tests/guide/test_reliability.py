"""The table of faults on the page names every row of the plan, and only scenes and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from ..chaos.matrix.playing import KINDS

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (\d+) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_table_of_faults() -> None:
    """Rows 1 to 65; what a scene is called there it is called in the matrix, with the same title; the files exist."""
    rows = ROW.findall((ROOT / "docs" / "reliability.md").read_text())
    assert set(range(1, 66)) == {int(number) for number, _, _ in rows}
    told = {key: title for _, title, where in rows for key in re.findall(r"scene `([^`]+)`", where)}
    assert {key: kind.title for key, kind in KINDS.items()} == told
    files = [file for _, _, where in rows for file in re.findall(r"`(tests/[^`]+)`", where)]
    assert files and [] == [file for file in files if not (ROOT / file).exists()]
