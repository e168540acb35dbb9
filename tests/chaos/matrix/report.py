"""Sum up what the scenes of a run left in build/chaos: a table for people, and build/chaos.json with the figures to publish.

Ends with exit code 1 if anything was wrong in any of them.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[3]
SUMS: Final = (
    "strikes", "jobs", "runs", "lost", "lost_untold", "stuck", "double_outcomes", "extra_runs", "overlapping", "stalls",
    "stale_offered", "stale_accepted", "events", "counted_lost", "uncounted", "spans", "spans_missing", "totals_wrong",
)  # fmt: skip
COLUMNS: Final = (
    "jobs",
    "runs",
    "lost",
    "stuck",
    "double_outcomes",
    "stale_accepted",
    "uncounted",
    "spans_missing",
    "totals_wrong",
)
HEADS: Final = ("jobs", "runs", "lost", "stuck", "double", "stale", "uncounted", "no span", "totals", "recovery", "resumed", "")


def percentile(values: list[float], share: float) -> float | None:
    """Return the smallest of the values that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else None


def summary(scenes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all scenes together."""
    recoveries = [seconds for scene in scenes for seconds in scene["recoveries"]]
    resumed = [scene["resumed"] for scene in scenes]
    return {
        "scenes": len(scenes),
        "faults": len({fault for scene in scenes for fault in scene["faults"]}),
        **{name: sum(scene[name] for scene in scenes) for name in SUMS},
        "recovery_seconds": {name: percentile(recoveries, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))},
        "resumed_seconds": {name: percentile(resumed, share) for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1))},
        "seconds": round(sum(scene["seconds"] for scene in scenes), 1),
        "failing": [
            {"faults": scene["faults"], "seed": scene["seed"], **scene["problems"]} for scene in scenes if scene["problems"]
        ],
    }


def row(scene: dict[str, Any]) -> list[str]:
    """Return one scene's line: its faults, and its figures."""
    slowest = f"{max(scene['recoveries']):.2f} s" if scene["recoveries"] else "-"
    figures = [str(scene[name]) for name in COLUMNS]
    return [" + ".join(scene["faults"]), *figures, slowest, f"{scene['resumed']:.2f} s", "WRONG" if scene["problems"] else "ok"]


def table(rows: list[list[str]]) -> str:
    """Return rows as a table, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))])
        for cells in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    """Print the table and write the figures."""
    folder = ROOT / "build" / "chaos"
    scenes = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    if not scenes:
        print(f"no scenes in {folder.relative_to(ROOT)}: make chaos plays them")
        return 1
    figures = summary(scenes)
    print(table([["fault", *HEADS], *map(row, sorted(scenes, key=lambda scene: (len(scene["faults"]), scene["faults"])))]))
    told = {name: value for name, value in figures.items() if name != "failing"}
    print("\n" + "\n".join(f"{name}: {value}" for name, value in told.items()))
    print(f"seeds: {os.environ.get('SEED') or 'each scene its own, in build/chaos.json'}")
    (folder.parent / "chaos.json").write_text(json.dumps({**figures, "of_each": scenes}, indent=1))
    for failing in figures["failing"]:
        print(f"WRONG: {failing}")
    return 1 if figures["failing"] else 0


if __name__ == "__main__":
    sys.exit(main())
