"""What a release is made of: the same bytes whoever builds it, locked dependencies, an audit that says when it did not look."""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .wheel import ROOT, run

#: A commit's time, as `make wheel` hands it over.
EPOCH = 1_780_000_000


def tool(name: str) -> ModuleType:
    """Import a module of tools/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources() -> list[Path]:
    """Every file that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]


def clone(folder: Path, *, umask: int, mtime: int, backwards: bool) -> None:
    """Lay the sources out as another person's clone has them: order of writing, permissions and times are theirs."""
    for path in sorted(sources(), reverse=backwards):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
        target.chmod((0o777 if os.access(ROOT / path, os.X_OK) else 0o666) & ~umask)
        os.utime(target, (mtime, mtime))


def build(tree: Path, out: Path, *, umask: int, zone: str) -> subprocess.Popen[bytes]:
    """Begin to build sdist and wheel."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"SOURCE_DATE_EPOCH": str(EPOCH), "TZ": zone, "LC_ALL": "C", "PYTHONHASHSEED": str(umask)}
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    return subprocess.Popen(command, cwd=tree, env=environment, umask=umask, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_two_people_build_the_same_bytes(tmp_path: Path) -> None:
    """At different paths, times, time zones, umasks, with leftovers lying about; and the wheel of the sdist is the wheel."""
    ours, theirs = tmp_path / "a", tmp_path / "somewhere" / "else" / "b"
    clone(ours, umask=0o022, mtime=1_600_000_000, backwards=False)
    clone(theirs, umask=0o077, mtime=1_700_000_001, backwards=True)
    for leftover in ("eventq/__pycache__/old.cpython-311.pyc", "build/lib/eventq/gone.py", ".venv/lib/x.py", "dist/old.whl"):
        (theirs / leftover).parent.mkdir(parents=True, exist_ok=True)
        (theirs / leftover).write_text("leftover")
    started = [
        build(ours, tmp_path / "1", umask=0o022, zone="UTC"),
        build(theirs, tmp_path / "2", umask=0o077, zone="Asia/Kathmandu"),
    ]
    assert [0, 0] == [each.wait(60) for each in started]
    first, second = ({path.name: path for path in (tmp_path / each).iterdir()} for each in ("1", "2"))
    assert first.keys() == second.keys() and len(first) == 2
    assert [] == [name for name in first if first[name].read_bytes() != second[name].read_bytes()]

    (sdist,) = (path for name, path in first.items() if name.endswith(".tar.gz"))
    (wheel,) = (path for name, path in first.items() if name.endswith(".whl"))
    _no_clock_in(sdist, wheel)
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert 0 == build(unpacked, tmp_path / "3", umask=0o022, zone="UTC").wait(60)
    assert wheel.read_bytes() == (tmp_path / "3" / wheel.name).read_bytes()


def _no_clock_in(sdist: Path, wheel: Path) -> None:
    """Two builds within two seconds agree on the clock too; so every time has to be the commit's."""
    moment = datetime.fromtimestamp(EPOCH, UTC)
    with zipfile.ZipFile(wheel) as archive:
        assert {moment.replace(second=moment.second // 2 * 2, tzinfo=None)} == {
            datetime(*each.date_time) for each in archive.infolist()
        }
    assert EPOCH == struct.unpack("<I", sdist.read_bytes()[4:8])[0]
    with gzip.open(sdist) as plain, tarfile.open(fileobj=plain) as archive:
        members = archive.getmembers()
    assert {(EPOCH, 0, 0, "", "")} == {(each.mtime, each.uid, each.gid, each.uname, each.gname) for each in members}


LOCK = ROOT / "requirements.lock"


def test_every_locked_file_has_its_hash_and_no_address() -> None:
    """pip takes the file with --require-hashes; and it says nothing about the machine it was written on."""
    entries = re.split(r"\n(?=\S)", re.sub(r"^#.*\n", "", LOCK.read_text(), flags=re.MULTILINE).strip())
    for entry in entries:
        requirement, *hashes = entry.replace("\\\n", "\n").splitlines()
        parsed = Requirement(requirement.strip())
        assert parsed.url is None and [each.operator for each in parsed.specifier] == ["=="], requirement
        assert hashes and all(re.fullmatch(r" {4}--hash=sha256:[0-9a-f]{64}", each.rstrip()) for each in hashes), requirement
    assert len(entries) > 50
    assert not re.search(r"://|@ |--(extra-)?index|--find-links|/(home|root|tmp|usr|opt|work)\b", LOCK.read_text())


def test_the_lock_is_of_these_dependencies() -> None:
    """Whoever adds or raises a dependency writes the lock anew: `make lock`."""
    declared: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        *declared["project"]["optional-dependencies"].values(),
        declared["dependency-groups"]["dev"],
        declared["dependency-groups"]["docs"],
    ]
    wanted = [
        Requirement(text) for group in [declared["project"]["dependencies"], *groups] for text in group if isinstance(text, str)
    ]
    locked: dict[str, set[str]] = tool("check_sbom").locked_versions()
    for each in wanted:
        if each.name != "eventq":
            versions = locked.get(canonicalize_name(each.name), set())
            assert versions and all(each.specifier.contains(version, prereleases=True) for version in versions), (
                f"{each}: make lock"
            )


@pytest.mark.full
@pytest.mark.timeout(900)
def test_the_bill_of_materials_lists_what_it_runs_on() -> None:
    """`make sbom` checks what it wrote."""
    done = run("make", "sbom", cwd=ROOT)
    assert "packages that eventq[all] runs on" in done.stdout


def test_a_bill_that_lacks_something_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dependency that is missing, one at another version, and a place on this machine."""
    check = tool("check_sbom")
    bill = tmp_path / "bill.json"
    monkeypatch.setattr(sys, "argv", ["check_sbom", str(bill)])
    locked = check.locked_versions()
    names: list[str] = sorted({canonicalize_name(each.name) for each in check.runtime_requirements()})
    assert {"blinker", "cronsim", "msgspec", "opentelemetry-api", "redis", "typing-extensions", "uvicorn"} <= set(names)

    def says(components: list[tuple[str, str]], more: str = "") -> tuple[int, str]:
        listed = ", ".join(f'{{"name": "{name}", "version": "{version}"}}' for name, version in components)
        bill.write_text(f'{{"components": [{listed}], "more": "{more}"}}')
        return check.main(), capsys.readouterr().out

    whole = [(name, max(locked[name])) for name in names]
    assert 0 == says(whole)[0]
    assert (1, f"{names[0]} is missing\n") == says(whole[1:])
    assert (1, f"{names[0]} 0.0 is not what requirements.lock says\n") == says([(names[0], "0.0"), *whole[1:]])
    assert (1, "it says where it was made: file:\n") == says(whole, "file:///somewhere")


def test_an_audit_that_did_not_look_says_so() -> None:
    """No service, a service without advisories, and packages that were skipped are no clean bill."""
    audit = tool("audit")
    found = {"dependencies": [{"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-1"}]}]}
    clean = {"dependencies": [{"name": "redis", "version": "8", "vulns": []}]}
    skipped = {"dependencies": [{"name": "redis", "skip_reason": "not found"}]}
    assert (0, "1 packages, no known vulnerability") == audit.verdict(found, clean)
    assert (1, "vulnerable:\njinja2 2.10: PYSEC-1") == audit.verdict(found, found)
    for known, locked in ((None, clean), (found, None), (clean, clean), (skipped, clean), (found, skipped), (found, {})):
        code, text = audit.verdict(known, locked)
        assert 2 == code and text.startswith("NOT AUDITED: "), (known, locked)
