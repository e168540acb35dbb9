"""A pytest plugin for a child process: eventq as it would be with some lines changed, and a report of what failed and how.

Self-contained, because it is loaded before anything else. EVENTQ_MUTANT is JSON: file of the package -> [[old, new], …];
EVENTQ_MUTANT_REPORT is where the report goes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from hypothesis import Phase, settings

EDITS: dict[str, list[tuple[str, str]]] = json.loads(os.environ["EVENTQ_MUTANT"])
applied: set[str] = set()
failures: list[dict[str, str]] = []


def mutate(file: str, text: str) -> str:
    """Return the text with the edits of this file; each must have exactly one place."""
    for old, new in EDITS.get(file, []):
        if text.count(old) != 1:
            raise ValueError(f"{file} has {text.count(old)} places like {old!r}")
        text = text.replace(old, new)
        applied.add(file)
    return text


class Loader(SourceFileLoader):
    """Compiles the changed source, whatever bytecode there is."""

    def get_code(self, fullname: str) -> CodeType:
        source = mutate(_file_of(fullname), Path(self.path).read_text(encoding="utf-8"))
        return compile(source, self.path, "exec", dont_inherit=True)


class Finder(MetaPathFinder):
    """Finds what the finders after it find, and has it loaded by the loader above."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None, /) -> ModuleSpec | None:
        if _file_of(fullname) not in EDITS:
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next(each for each in found if each is not None)
        spec.loader = Loader(fullname, str(spec.origin))
        return spec


def _file_of(module: str) -> str:
    return f"{module.removeprefix('eventq.').replace('.', '/')}.py"


if any(name.partition(".")[0] == "eventq" for name in sys.modules):
    raise RuntimeError("eventq is imported already: there is nothing left to change")
sys.meta_path.insert(0, Finder())

from eventq import scripts  # noqa: E402 - after the finder: it may be what is changed

_read = scripts._read
scripts._read = lambda *path: mutate("/".join(("lua", *path)), _read(*path))

# The profile of the suite inherits from the one that is loaded before it: the first failure is enough, it need not be small.
settings.register_profile("mutant", phases=[Phase.generate], print_blob=False)
settings.load_profile("mutant")


@pytest.hookimpl
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Note what failed."""
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        error = call.excinfo.value
        # A fault that depends on the millisecond does not come again when hypothesis asks for it: what counts is what it was.
        while isinstance(error, BaseExceptionGroup) and error.exceptions:
            error = error.exceptions[0]
        failures.append(
            {"test": item.nodeid, "when": call.when, "type": type(error).__name__, "text": str(error).partition("\n")[0]}
        )


def pytest_sessionfinish(exitstatus: int) -> None:
    """Write the report."""
    report = {"status": int(exitstatus), "applied": sorted(applied), "failures": failures}
    Path(os.environ["EVENTQ_MUTANT_REPORT"]).write_text(json.dumps(report), encoding="utf-8")
