"""Runs mutants: eventq is broken in one place at a time, in a process of its own, and a test there must fail.

`make mutants` runs them all, two at a time, and writes what came of each into build/mutants.json; ARGS="lease token" runs those
whose name contains one of these words.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from .mutants import MUTANTS, Mutant
from .mutants_around import MUTANTS_AROUND

ROOT: Final = Path(__file__).resolve().parents[2]
ALL: Final = (*MUTANTS, *MUTANTS_AROUND)
#: How an assertion fails: as one, or as a wait that was in vain.
ASSERTIONS: Final = {"AssertionError", "Failed", "TimeoutError"}
#: What a parent's pytest says to its own processes.
NOT_INHERITED: Final = ("PYTEST_", "EVENTQ_MUTANT")
#: Seconds for one mutant on a machine that is busy; those that are caught take a few.
LIMIT: Final = 300.0


@dataclass(frozen=True)
class Finding:
    """What became of one mutant. verdict: caught, lives, not applied, broken (something else failed), out of time."""

    mutant: str
    verdict: str
    seconds: float
    test: str = ""
    text: str = ""
    output: str = ""


def text_of(file: str) -> str:
    """Return a file as mutants name it: below eventq/, or with the exporter's package in front."""
    package = file.partition("/")[0]
    root = files(package if package.startswith("eventq_") else "eventq")
    return root.joinpath(*file.removeprefix(f"{package}/" if package.startswith("eventq_") else "").split("/")).read_text("utf-8")


def run_mutated(mutant: Mutant, folder: Path, limit: float = LIMIT) -> dict[str, Any] | None:
    """Run the mutant's tests in a process of their own; return the report of the plugin, None when it was out of time."""
    report = folder / "report.json"
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    environment = inherited | {
        "EVENTQ_MUTANT": json.dumps(mutant.by_file),
        "EVENTQ_MUTANT_REPORT": str(report),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "pytest", "-p", "mutating", "-p", "no:xdist", "-p", "no:cacheprovider", "-x", "-q", "-m", ""]
    process = subprocess.Popen(
        [*command, *mutant.tests],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        # Its servers and workers too.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    facts: dict[str, Any] = {"status": None, "applied": [], "failures": []}
    if report.exists():
        facts = json.loads(report.read_text(encoding="utf-8"))
    return facts | {"output": output[-4000:]}


def hunt(mutant: Mutant, limit: float = LIMIT) -> Finding:
    """Run one and return what became of it."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = run_mutated(mutant, Path(folder), limit)
    return judge(mutant, report, round(time.monotonic() - began, 1))


def judge(mutant: Mutant, report: dict[str, Any] | None, seconds: float) -> Finding:
    """Return what a report says: caught is a test that failed by an assertion, with every edit in place."""
    if report is None:
        return Finding(mutant.name, "out of time", seconds)
    failures, output = report["failures"], report["output"]
    if report["status"] is None:
        return Finding(mutant.name, "not applied", seconds, text="pytest did not get as far as running tests", output=output)
    if sorted(mutant.by_file) != report["applied"]:
        return Finding(mutant.name, "not applied", seconds, text="what was changed was never loaded", output=output)
    if not failures:
        return Finding(mutant.name, "lives", seconds, output=output)
    first = failures[0]
    verdict = "caught" if first["type"] in ASSERTIONS and first["when"] != "setup" else "broken"
    text = first["text"] if verdict == "caught" else f"{first['type']}: {first['text']}"
    return Finding(mutant.name, verdict, seconds, first["test"], text[:200], "" if verdict == "caught" else output)


def main() -> int:
    """Run the mutants that were asked for; 0 when all of them are caught and nothing fails unchanged."""
    parser = argparse.ArgumentParser(prog="make mutants", description="Break eventq in one place at a time; each must be caught.")
    parser.add_argument("words", nargs="*", help="only mutants whose name contains one of these")
    parser.add_argument("--at-once", type=int, default=2, help="how many run side by side")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds for one")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "mutants.json", help="where the findings go")
    options = parser.parse_args()
    chosen = [one for one in ALL if not options.words or any(word in one.name for word in options.words)]
    began = time.monotonic()
    unchanged = _unchanged(chosen, options.limit * 3)
    print(f"unchanged  {unchanged.verdict}  {unchanged.seconds:.1f} s  {unchanged.test} {unchanged.text}", flush=True)
    findings: list[Finding] = []
    with ThreadPoolExecutor(options.at_once) as pool:
        for done in as_completed([pool.submit(hunt, mutant, options.limit) for mutant in chosen]):
            findings.append(done.result())
            print(_row(findings[-1], len(findings), len(chosen)), flush=True)
    tally = Counter(finding.verdict for finding in findings)
    sound = tally["caught"] == len(chosen) > 0 and unchanged.verdict == "passes"
    options.json.parent.mkdir(parents=True, exist_ok=True)
    facts = {"total": len(chosen), "verdicts": dict(tally), "seconds": round(time.monotonic() - began, 1)}
    facts |= {"unchanged": asdict(unchanged), "findings": [asdict(finding) for finding in findings]}
    options.json.write_text(json.dumps(facts, indent=1), encoding="utf-8")
    _sum_up(findings, tally, len(chosen), time.monotonic() - began)
    return 0 if sound else 1


def _unchanged(chosen: list[Mutant], limit: float) -> Finding:
    """Run the same tests on eventq as it is: a test that fails there catches nothing."""
    tests = tuple(sorted({test for mutant in chosen for test in mutant.tests}))
    finding = hunt(Mutant("unchanged", (), tests), limit)
    if finding.verdict == "lives":
        return Finding("unchanged", "passes", finding.seconds)
    return (
        finding
        if finding.verdict == "out of time"
        else Finding("unchanged", "fails", finding.seconds, finding.test, finding.text)
    )


def _row(finding: Finding, number: int, total: int) -> str:
    test = finding.test.rpartition("/")[2]
    return f"{number:3}/{total}  {finding.verdict:11}  {finding.seconds:6.1f} s  {finding.mutant:68.68}  {test}"


def _sum_up(findings: list[Finding], tally: Counter[str], total: int, seconds: float) -> None:
    for finding in findings:
        if finding.verdict != "caught":
            print(f"\n{finding.mutant}: {finding.verdict} {finding.text}\n{finding.output}")
    by_test = Counter(finding.test.partition("[")[0] for finding in findings if finding.verdict == "caught")
    print("\ncaught by")
    for test, count in by_test.most_common():
        print(f"{count:5}  {test}")
    rest = ", ".join(f"{count} {verdict}" for verdict, count in sorted(tally.items()) if verdict != "caught")
    print(f"\n{tally['caught']} of {total} caught in {seconds:.0f} s{f'; {rest}' if rest else ''}")


if __name__ == "__main__":
    sys.exit(main())
