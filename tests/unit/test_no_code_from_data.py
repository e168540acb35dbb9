"""Data is never code: nothing in eventq or its exporters deserialises objects, evaluates text, or imports what data names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import eventq
import eventq_opentelemetry
import eventq_prometheus
from eventq.processors import Processors, UnknownJobName

FOLDERS = [Path(package.__file__ or "").parent for package in (eventq, eventq_opentelemetry, eventq_prometheus)]
FILES = sorted(path for folder in FOLDERS for path in folder.rglob("*.py"))
BANNED_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "runpy",
    "code",
    "codeop",
    "imp",
}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
#: Of yaml only what makes plain values.
BANNED_ATTRIBUTES = {
    "yaml": {
        "load",
        "load_all",
        "full_load",
        "full_load_all",
        "unsafe_load",
        "unsafe_load_all",
        "Loader",
        "UnsafeLoader",
        "FullLoader",
    },
    "os": {"system", "popen"},
    "pkgutil": {"resolve_name"},
}
#: Where a name that is no constant may be imported: `module:object`, which a person types, and front doors that import their own
#: names when these are asked for; and where what is installed is asked for its entry points.
IMPORTERS = ("cli/target.py", "eventq_prometheus/__init__.py", "eventq_opentelemetry/__init__.py")
LOADERS = ("cli/plugins.py", "eventq_opentelemetry/environment.py")


def offences(path: str, text: str) -> list[str]:
    """Return what stands in a module that may not."""
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        line = f"{path}:{getattr(node, 'lineno', 0)}"
        match node:
            case ast.Import(names=names):
                found += [f"{line} import {each.name}" for each in names if each.name.partition(".")[0] in BANNED_MODULES]
            case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in BANNED_MODULES:
                found.append(f"{line} from {module}")
            case ast.Call(func=ast.Name(id=name)) if name in BANNED_CALLS:
                found.append(f"{line} {name}()")
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if name in BANNED_ATTRIBUTES.get(owner, ()):
                found.append(f"{line} {owner}.{name}")
            case ast.Call(func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"), args=[name, *_]):
                if not isinstance(name, ast.Constant) and not path.endswith(IMPORTERS):
                    found.append(f"{line} import_module of what is no constant")
            case ast.Name(id="entry_points") if not path.endswith(LOADERS):
                found.append(f"{line} entry_points")
            case ast.keyword(arg="shell", value=ast.Constant(value=True)):
                found.append(f"{line} shell=True")
            case _:
                pass
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: "/".join(path.parts[-3:]))
def test_no_module_makes_code_of_data(path: Path) -> None:
    assert offences("/".join(path.parts[-3:]), path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    ["import pickle", "from marshal import loads", "eval(x)", "__import__(name)", "yaml.load(x)", "import importlib\nimportlib.import_module(name)", "os.system(x)", "run(x, shell=True)", "entry_points()"],
)  # fmt: skip
def test_the_ban_list_sees_what_it_bans(text: str) -> None:
    assert offences("a.py", text)


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess:run", "os/system", "eventq.cli:main", "__import__"])
def test_a_job_name_is_looked_up_in_the_workers_own_processors_only(name: str) -> None:
    """Names such as these never resolve, whatever is importable."""

    async def fine(job: object) -> None: ...

    processors = Processors({"fine": fine})
    with pytest.raises(UnknownJobName):
        processors.find(name)
    assert processors.find("fine")[0] is fine
