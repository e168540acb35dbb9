"""The wheel as users get it, installed where nothing else is; shared by tests/packaging and tests/typing.

Building and installing takes seconds, so one test process does it once: its users carry `xdist_group("wheel")`.
"""

import os
import subprocess
import sys
import venv
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


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this source tree, built by the tools that are installed here."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def wheel_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with what it depends on, no extras."""
    return _install(tmp_path_factory, str(wheel))


@pytest.fixture(scope="session")
def extras_env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """The wheel with its `[cli]` extra, and pydantic, whose models queues accept."""
    return _install(tmp_path_factory, f"{wheel}[cli]", "pydantic")


def _install(tmp_path_factory: pytest.TempPathFactory, *requirements: str) -> Environment:
    base = tmp_path_factory.mktemp("environment")
    made = Environment(base / "venv", base / "empty")
    made.elsewhere.mkdir()
    venv.create(made.path, symlinks=True, with_pip=False)
    pip = (sys.executable, "-m", "pip", "--python", made.python, "install", "--quiet", "--disable-pip-version-check")
    run(*pip, *requirements, cwd=made.elsewhere)
    return made
