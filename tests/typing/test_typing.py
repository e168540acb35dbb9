"""Type checkers accept right use of the built wheel, and reject wrong use: each wrong line, and no other."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.packaging.wheel import Environment, run

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent

#: Line number -> what the checker said about it.
Findings = dict[int, list[str]]
Checker = Callable[[Path, Environment], Findings]


def check_with_mypy(file: Path, environment: Environment) -> Findings:
    """Run mypy --strict where only the file and the wheel are."""
    options = ("--strict", "--config-file=", "--no-incremental", "--output=json", "--python-executable")
    done = run(sys.executable, "-m", "mypy", *options, environment.python, file.name, cwd=file.parent, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    findings: Findings = {}
    for line in filter(None, done.stdout.splitlines()):
        finding = json.loads(line)
        assert finding["file"] == file.name, finding
        if finding["severity"] == "error":
            findings.setdefault(finding["line"], []).append(f"{finding['code']}: {finding['message']}")
    return findings


def check_with_basedpyright(file: Path, environment: Environment) -> Findings:
    """Run basedpyright, strict, where only the file and the wheel are."""
    settings = {"include": [file.name], "typeCheckingMode": "strict", "pythonVersion": "3.11"}
    (file.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    options = ("--outputjson", "--pythonpath", environment.python)
    done = run(sys.executable, "-m", "basedpyright", *options, cwd=file.parent, check=False)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1, done.stdout
    findings: Findings = {}
    for finding in report["generalDiagnostics"]:
        line = finding["range"]["start"]["line"] + 1
        findings.setdefault(line, []).append(f"{finding.get('rule')}: {finding['message']}")
    return findings


CHECKERS = [
    pytest.param(check_with_mypy, id="mypy"),
    pytest.param(check_with_basedpyright, id="basedpyright"),
]


def alone(name: str, tmp_path: Path) -> Path:
    """Copy the file to where nothing else is."""
    return Path(shutil.copy(HERE / name, tmp_path))


@pytest.mark.parametrize("check", CHECKERS)
def test_right_use_is_accepted(check: Checker, extras_env: Environment, tmp_path: Path) -> None:
    """Not one finding about the examples of right use."""
    assert check(alone("accepted.py", tmp_path), extras_env) == {}


@pytest.mark.parametrize("check", CHECKERS)
def test_wrong_use_is_rejected(check: Checker, extras_env: Environment, tmp_path: Path) -> None:
    """A finding on each line that ends in `# error`, and on no other."""
    file = alone("rejected.py", tmp_path)
    lines = file.read_text().splitlines()
    marked = {number for number, line in enumerate(lines, 1) if re.search(r" # error$", line)}
    findings = check(file, extras_env)
    missed = {number: lines[number - 1].strip() for number in sorted(marked - set(findings))}
    surprising = {number: findings[number] for number in sorted(set(findings) - marked)}
    assert (missed, surprising) == ({}, {})
    assert marked
