"""Ask pip-audit about everything that requirements.lock names, and believe it only when it really looked.

`python tools/audit.py path/to/pip-audit`. pip-audit skips what its service does not know and then says that no vulnerability is
known: where the service is a mirror without advisories, that is a green light for nothing. So a release known to be vulnerable is
asked about as well, and has to be found.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
#: PYSEC-2019-217 (CVE-2019-10906); asked about and never installed.
CANARY: Final = "jinja2==2.10"


def main() -> int:
    """Audit, print what was found. Exit code 1: vulnerable; 2: not audited."""
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder, "canary.txt")
        canary.write_text(CANARY + "\n")
        known = _ask(Path(folder), "--no-deps", "-r", str(canary))
        locked = _ask(Path(folder), "--require-hashes", "-r", str(ROOT / "requirements.lock"))
    code, text = verdict(known, locked)
    print(text, file=sys.stderr if code else sys.stdout)
    return code


def verdict(known: dict[str, Any] | None, locked: dict[str, Any] | None) -> tuple[int, str]:
    """Return exit code and text for the reports about the canary and the lock; None for a report that did not come."""
    if known is None or locked is None:
        return 2, "NOT AUDITED: the vulnerability service did not answer"
    if not any(each.get("vulns") for each in known.get("dependencies", [])):
        return (
            2,
            f"NOT AUDITED: the vulnerability service knows nothing of {CANARY}, which is vulnerable: it is a mirror, or changed",
        )
    dependencies: list[dict[str, Any]] = locked.get("dependencies", [])
    skipped = [f"{each['name']}: {each['skip_reason']}" for each in dependencies if "skip_reason" in each]
    if skipped or not dependencies:
        return 2, "\n".join([f"NOT AUDITED: {len(skipped)} of {len(dependencies)} packages were skipped", *skipped])
    found = [f"{each['name']} {each['version']}: {flaw['id']}" for each in dependencies for flaw in each["vulns"]]
    if found:
        return 1, "\n".join(["vulnerable:", *found])
    return 0, f"{len(dependencies)} packages, no known vulnerability"


def _ask(folder: Path, *what: str) -> dict[str, Any] | None:
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [sys.argv[1], "--disable-pip", "--progress-spinner", "off", "--format", "json", "--output", str(report), *what]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        answer: dict[str, Any] = json.loads(report.read_text())
        return answer
    except (OSError, ValueError):
        print(done.stderr[-2000:], file=sys.stderr)
        return None


if __name__ == "__main__":
    sys.exit(main())
