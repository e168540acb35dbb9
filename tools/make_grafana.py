"""Writes what is generated of grafana/: dashboards, alert rules, manifests for Kubernetes.

`python tools/make_grafana.py` writes the files, `--check` says which differ and exits 1 if any does.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from eventq_prometheus import dashboards, rules

FOLDER: Final = Path(__file__).resolve().parents[1] / "grafana"


def main() -> int:
    """Write the files, or compare them with `--check`."""
    differing = {name: text for name, text in files().items() if not _is_same(FOLDER / name, text)}
    if "--check" in sys.argv:
        print("\n".join(f"grafana/{name} is not what the code says" for name in differing) or "grafana: as the code")
        return 1 if differing else 0
    for name, text in differing.items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text)
        print(f"grafana/{name} written")
    return 0


def files() -> dict[str, str]:
    """Return the text of every generated file by its path below grafana/."""
    return dashboards.files() | rules.files()


def _is_same(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
