"""The tests themselves are tested: eventq is broken in one place at a time, and each time a test must fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from ..servers import ServerKind
from .mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[2]
#: How an assertion fails: as one, or as a wait that was in vain.
ASSERTIONS = {"AssertionError", "Failed"}
#: What a parent's pytest says to its own processes.
NOT_INHERITED = ("PYTEST_", "EVENTQ_MUTANT")


def run_mutated(mutant: Mutant, folder: Path) -> dict[str, Any]:
    """Run the mutant's tests in a process of their own; return the report of the plugin."""
    report = folder / "report.json"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    environment = inherited | {
        "EVENTQ_MUTANT": json.dumps(mutant.by_file),
        "EVENTQ_MUTANT_REPORT": str(report),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "pytest", "-p", "mutating", "-p", "no:xdist", "-p", "no:cacheprovider", "-x", "-q", "-m", ""]
    done = subprocess.run([*command, *mutant.tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert report.exists(), (
        f"{mutant.name}: pytest did not get as far as running tests\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    )
    facts: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return facts | {"output": done.stdout[-4000:]}


def check_caught(mutant: Mutant, folder: Path) -> None:
    """The mutant's tests must fail, by an assertion, with the mutation in place."""
    began = time.monotonic()
    report = run_mutated(mutant, folder)
    seconds = time.monotonic() - began
    assert sorted(mutant.by_file) == report["applied"], f"{mutant.name}: what was changed was never loaded\n{report['output']}"
    assert report["failures"], f"{mutant.name}: survived\n{report['output']}"
    first = report["failures"][0]
    assert first["type"] in ASSERTIONS and first["when"] != "setup", f"{mutant.name}: {first}\n{report['output']}"
    print(f"mutant caught: {mutant.name}: by {first['test'].rpartition('/')[2]} in {seconds:.1f} s: {first['text'][:120]}")


def test_every_mutant_changes_one_place_each() -> None:
    """Every old text stands exactly once in its file, and no two mutants have one name."""
    counts = {(mutant.name, old): _text(file).count(old) for mutant in MUTANTS for file, old, _ in mutant.edits}
    assert dict.fromkeys(counts, 1) == counts
    assert len(MUTANTS) == len({mutant.name for mutant in MUTANTS})


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.quick], ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(mutant: Mutant, tmp_path: Path, server_kind: ServerKind) -> None:
    """Three of them in every run of the suite: a check of a script, of numbered calls, of the worker."""
    check_caught(mutant, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if not mutant.quick], ids=lambda mutant: mutant.name)
def test_each_other_mutant_is_caught(mutant: Mutant, tmp_path: Path, server_kind: ServerKind) -> None:
    """All the others."""
    check_caught(mutant, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_nothing_fails_unchanged(tmp_path: Path, server_kind: ServerKind) -> None:
    """The same tests, run in the same way, pass on eventq as it is."""
    tests = tuple(sorted({test for mutant in MUTANTS for test in mutant.tests}))
    report = run_mutated(Mutant("none", (), tests), tmp_path)
    assert (0, [], []) == (report["status"], report["applied"], report["failures"]), report["output"]


def _text(file: str) -> str:
    return files("eventq").joinpath(*file.split("/")).read_text(encoding="utf-8")
