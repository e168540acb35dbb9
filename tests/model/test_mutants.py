"""The tests themselves are tested: eventq is broken in one place at a time, and each time a test must fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..servers import ServerKind
from .hunting import ALL, hunt, judge, run_mutated, text_of
from .mutants import Mutant


def check_caught(mutant: Mutant) -> None:
    """The mutant's tests must fail, by an assertion, with the mutation in place."""
    found = hunt(mutant)
    assert found.verdict == "caught", f"{mutant.name}: {found.verdict} {found.text}\n{found.output}"
    print(f"mutant caught: {mutant.name}: by {found.test.rpartition('/')[2]} in {found.seconds:.1f} s: {found.text[:120]}")


def test_every_mutant_changes_one_place_each() -> None:
    """Every old text stands exactly once in its file, and no two mutants have one name."""
    counts = {(mutant.name, old): text_of(file).count(old) for mutant in ALL for file, old, _ in mutant.edits}
    assert dict.fromkeys(counts, 1) == counts
    assert len(ALL) == len({mutant.name for mutant in ALL})


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"failures": [{"test": "t", "when": "call", "type": "AssertionError", "text": "1 == 2"}]}, "caught"),
        ({"failures": [{"test": "t", "when": "call", "type": "KeyError", "text": "'x'"}]}, "broken"),
        ({"failures": [{"test": "t", "when": "setup", "type": "AssertionError", "text": "1 == 2"}]}, "broken"),
        ({"status": 0}, "lives"),
        ({"applied": []}, "not applied"),
        ({"status": None}, "not applied"),
        (None, "out of time"),
    ],
)
def test_only_an_assertion_with_every_edit_in_place_catches(said: dict[str, Any] | None, verdict: str) -> None:
    """A mutant that breaks something else, or was never there, is not called caught."""
    mutant = Mutant("m", (("runs.py", "old", "new"),))
    report: dict[str, Any] = {"status": 1, "applied": ["runs.py"], "failures": [], "output": ""}
    assert judge(mutant, None if said is None else report | said, 1.0).verdict == verdict


@pytest.mark.parametrize("mutant", [mutant for mutant in ALL if mutant.quick], ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant, server_kind: ServerKind) -> None:
    """Three of them in every run of the suite: a check of a script, of numbered calls, of the worker."""
    check_caught(mutant)


@pytest.mark.full
@pytest.mark.timeout(330)
@pytest.mark.parametrize("mutant", [mutant for mutant in ALL if not mutant.quick], ids=lambda mutant: mutant.name)
def test_each_other_mutant_is_caught(mutant: Mutant, server_kind: ServerKind) -> None:
    """All the others."""
    check_caught(mutant)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_nothing_fails_unchanged(tmp_path: Path, server_kind: ServerKind) -> None:
    """The same tests, run in the same way, pass on eventq as it is."""
    tests = tuple(sorted({test for mutant in ALL for test in mutant.tests}))
    report = run_mutated(Mutant("none", (), tests), tmp_path, 870)
    assert report is not None
    assert (0, [], []) == (report["status"], report["applied"], report["failures"]), report["output"]
