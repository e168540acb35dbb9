"""Check that a bill of materials lists what eventq runs on, at the locked versions, and nothing of this machine.

`python tools/check_sbom.py build/eventq.cdx.json`; prints what is wrong and exits 1 if anything is.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
#: Where this very machine is, or where it installs from.
_OF_THIS_MACHINE = re.compile(r"file:|localhost|127\.0\.0\.1|" + re.escape(str(ROOT)))


def main() -> int:
    """Check the file named on the command line."""
    text = Path(sys.argv[1]).read_text()
    listed: dict[str, str] = {
        canonicalize_name(each["name"]): each.get("version", "") for each in json.loads(text).get("components", [])
    }
    findings = [*_missing(listed), *_extra(listed)]
    if found := _OF_THIS_MACHINE.search(text):
        findings.append(f"it says where it was made: {found[0]}")
    print("\n".join(findings) if findings else f"{sys.argv[1]}: {len(listed)} packages that eventq[all] runs on")
    return 1 if findings else 0


def runtime_requirements() -> list[Requirement]:
    """Return what the core and the extras require here, by pyproject.toml."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    wanted = [Requirement(text) for text in texts]
    return [each for each in wanted if each.name != "eventq" and (each.marker is None or each.marker.evaluate())]


def locked_versions() -> dict[str, set[str]]:
    """Return the versions that requirements.lock names, by package: several, where markers tell them apart."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        versions.setdefault(canonicalize_name(name), set()).add(version)
    return versions


def _missing(listed: dict[str, str]) -> list[str]:
    names = {canonicalize_name(each.name) for each in runtime_requirements()}
    return [f"{name} is missing" for name in sorted(names - listed.keys())]


def _extra(listed: dict[str, str]) -> list[str]:
    locked = locked_versions()
    return [
        f"{name} {version} is not what requirements.lock says"
        for name, version in listed.items()
        if version not in locked.get(name, ())
    ]


if __name__ == "__main__":
    sys.exit(main())
