"""Grafana's own types and its grammar of TraceQL, from npm, and TypeScript's compiler to hold dashboards against the types."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .dashboard_lint import Content, all_panels

SOURCES: Final = Path(__file__).parent / "grafana_schema"
#: A newer Grafana brings a dashboard up to date; an older one has to take it as it is.
OLDER: Final = ("InGrafana10", "InGrafana11", "InGrafana12")


@dataclass(frozen=True, slots=True)
class _Constant:
    place: str
    kind: str
    value: object


class CannotInstall(Exception):
    """The packages could not be installed; the message says why."""


def missing_tools() -> str | None:
    """Return which of Node's tools is not there, as a reason to skip."""
    missing = [tool for tool in ("node", "npm") if shutil.which(tool) is None]
    return f"no {' and no '.join(missing)}: dashboards are checked against Grafana's types with Node" if missing else None


def install(folder: Path) -> None:
    """Put the compiler, Grafana's types and grammar, and our own files into a folder."""
    for name in ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "dashboards.ts", "traceql.mjs"):
        shutil.copy(SOURCES / name, folder)
    command = ["npm", "ci", "--prefer-offline", "--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode:
        raise CannotInstall(f"npm ci failed: {' '.join(done.stderr.split())[:300]}")


def complaints(folder: Path, dashboards: Mapping[str, Content]) -> list[str]:
    """Return what the compiler says of dashboards, by name; a line for each error."""
    constants = list(_constants(dashboards))
    imported = f'import type {{ Frame, Panels, {", ".join(OLDER)} }} from "./dashboards";'
    exported = [f"export const it_{number}: {each.kind} = {json.dumps(each.value)};" for number, each in enumerate(constants)]
    (folder / "checked.ts").write_text("\n".join([imported, *exported, ""]))
    command = ["node", "node_modules/typescript/bin/tsc", "--project", ".", "--pretty", "false"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    places = {str(line): each.place for line, each in enumerate(constants, start=2)}
    said = [line for line in f"{done.stdout}{done.stderr}".splitlines() if line.strip()]
    return [re.sub(r"^checked\.ts\((\d+),\d+\)", lambda found: places.get(found[1], found[0]), line) for line in said]


def traceql_errors(folder: Path, queries: Iterable[str]) -> dict[str, str]:
    """Return the queries that are no TraceQL, each with what stands where the grammar does not know on."""
    command = ["node", "traceql.mjs"]
    done = subprocess.run(
        command, cwd=folder, input=json.dumps(list(queries)), capture_output=True, text=True, timeout=60, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


def _constants(dashboards: Mapping[str, Content]) -> Iterator[_Constant]:
    for name, content in dashboards.items():
        yield _Constant(name, "Frame", {**content, "panels": []})
        # Each on its own: of a panel that is one of several kinds, the compiler lets the keys of all kinds pass.
        for panel in all_panels(content):
            plain = {**panel, "panels": []} if panel["type"] == "row" else panel
            yield _Constant(f"{name}, {panel['title']}", f"Panels[{json.dumps(panel['type'])}]", plain)
        for older in OLDER:
            yield _Constant(f"{name}, as {older}", older, content)
