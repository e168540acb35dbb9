"""The wheel as users get it, installed where nothing else is; shared by tests/packaging and tests/typing.

Building and installing takes seconds, so it is done once for all test processes of a run.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment, used from an empty directory so that the repository is out of sight."""

    path: Path
    elsewhere: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of this environment; its output is in the failure."""
        program = self.path / "bin" / command[0]
        return run(program, *command[1:], cwd=self.elsewhere, check=check)


def run(*command: str | Path, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command away from this process' import settings and show its output if it fails."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
    return done


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Make a directory of this run, in whichever test process comes first; the others wait for it."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder, done = base / name, base / f"{name}.done"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree, built by the tools that are installed here."""

    def build(folder: Path) -> None:
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)

    (built,) = once(tmp_path_factory, "wheel", build).glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with what it depends on, no extras."""
    return _installed(tmp_path_factory, "wheel-env", str(wheel))


@pytest.fixture(scope="session")
def extras_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with its `[cli]` extra, and pydantic, whose models queues accept."""
    return _installed(tmp_path_factory, "extras-env", f"{wheel}[cli]", "pydantic")


def _installed(factory: pytest.TempPathFactory, name: str, *requirements: str) -> Environment:
    def install(folder: Path) -> None:
        (folder / "empty").mkdir()
        venv.create(folder / "venv", symlinks=True, with_pip=False)
        python = folder / "venv" / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check")
        run(*pip, *requirements, cwd=folder)

    folder = once(factory, name, install)
    return Environment(folder / "venv", folder / "empty")
