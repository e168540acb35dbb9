"""The site is built without a warning."""

import subprocess
import sys
from pathlib import Path

from .pages import ROOT


def test_site_is_built_without_warnings(tmp_path: Path) -> None:
    """As `make docs` does it: a link that leads nowhere is a warning, and a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "-n", "--keep-going", "-c", "docs", ".", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout
    built = {page.relative_to(tmp_path).with_suffix("").as_posix() for page in tmp_path.rglob("*.html")}
    written = {page.relative_to(ROOT).with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert written - built == set()
