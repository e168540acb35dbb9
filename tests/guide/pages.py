"""The code blocks of README.md and docs/, and what is done with each. No block is skipped.

A page is read from top to bottom, in a folder of its own with an embedded server of its own (EVENTQ_URL). What is done with a
block depends on its language and on the HTML comment just above it:

| block | what is done |
| --- | --- |
| `python` | continues the page's session, as pasted into `python -m asyncio`: one process, one namespace, `await` anywhere |
| `<!-- file: NAME -->` above any block | written to that file of the page's folder; a later command has to name it |
| `<!-- example -->` above `python` | a whole program, run in a process of its own |
| `<!-- endless -->` above `python` | continues the session and would never end: cancelled once it has printed its output |
| `text` right after one of these | the exact output; after a block without one, nothing may be printed |
| `console` | each `$ command` is run, has to print the lines under it and to succeed; `^C` is Ctrl-C once what is above is printed |
| `sh` | each command is run and has to succeed; of those that install, make or deploy, what they name is looked up |
| `yaml` `json` `toml` `ini` `dockerfile` `conf` | parsed; `conf` is also set on a server |
| `promql` | each metric and label it names exists |
| `typescript` | BullMQ's side of a comparison: not run |

In expected output `...` stands for anything within a line, and a line of nothing else for any lines. Of a console, several blanks stand
for any number of them: columns are as wide as what they hold. `<!-- setup` opens a comment whose lines, up to `-->`, are run as a
`python` block that readers do not see.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ("python", "console", "sh")
PARSED = ("yaml", "json", "toml", "ini", "dockerfile", "conf", "promql")
NOT_RUN = ("typescript",)
MARKS = {"": (*RUN, *PARSED, *NOT_RUN), "example": ("python",), "endless": ("python",), "file": ("python", *PARSED)}

_MARK = re.compile(r"<!-- ([a-z]+)(?:: (\S+))? -->")


class PageError(Exception):
    """A page breaks one of the rules above; the message names page and line."""


@dataclass(frozen=True)
class Block:
    """A fenced block. mark: the comment above it. file: what it is written to. output: what it has to print."""

    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    file: str = ""
    output: str = ""

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    """Return a page's blocks with their outputs. Raises PageError for a block that nothing would be done with."""
    name = page.relative_to(ROOT).as_posix() if page.is_relative_to(ROOT) else page.name
    return find_blocks(name, page.read_text())


def find_blocks(page: str, text: str) -> list[Block]:
    """Return the blocks of a page's text. Raises PageError."""
    blocks: list[Block] = []
    lines = iter(enumerate(text.splitlines(), 1))
    mark, file, follows, prose = "", "", False, ""
    for number, line in lines:
        if line.lstrip().startswith(("```", "~~~")):
            if not re.fullmatch(r"```[a-z]+", line):
                raise PageError(f"{page}:{number}: a block begins with three backticks in the first column and a language")
            body = _until("```", lines, f"{page}:{number}")
            block = Block(page, number, line[3:], body, mark, file)
            if file not in prose:
                raise PageError(f"{block}: readers do not see that this is {file}: name it above the block")
            if block.language == "text":
                blocks.append(_with_output(block, blocks.pop() if follows and blocks else None))
            else:
                blocks.append(_checked(block))
            mark, file, follows = "", "", block.language != "text"
        elif line == "<!-- setup":
            blocks.append(Block(page, number, "python", _until("-->", lines, f"{page}:{number}")))
        elif found := _MARK.fullmatch(line):
            mark, file = found[1], found[2] or ""
        elif line.strip():
            prose += line
            if mark in MARKS and mark:
                raise PageError(f"{page}:{number - 1}: <!-- {mark} --> with no block under it")
            mark, file, follows = "", "", False
    return blocks


def _until(end: str, lines: Iterator[tuple[int, str]], where: str) -> str:
    body: list[str] = []
    for _, line in lines:
        if line == end:
            return "".join(f"{each}\n" for each in body)
        body.append(line)
    raise PageError(f"{where}: a block without an end")


def _checked(block: Block) -> Block:
    if block.language not in MARKS[""]:
        raise PageError(f"{block}: {block.language!r} is not one of {', '.join(MARKS[''])}, text")
    if block.language not in MARKS.get(block.mark, ()):
        raise PageError(f"{block}: <!-- {block.mark} --> does not go with {block.language}")
    if (block.mark == "file") != bool(block.file):
        raise PageError(f"{block}: <!-- file: NAME --> has a name, and nothing else has")
    return block


def _with_output(text: Block, block: Block | None) -> Block:
    if block is None or block.language != "python" or block.mark == "file":
        raise PageError(f"{text}: output of nothing: a text block follows a python block that is run")
    return replace(block, output=text.text)


def pattern(expected: str, *, is_console: bool = False) -> str:
    """Return expected output as a regular expression."""
    lines = [re.escape(line).replace(r"\.\.\.", ".*") for line in expected.splitlines()]
    if is_console:
        lines = [re.sub(r"(?:\\ ){2,}", " +", line) for line in lines]
    return "".join(r"(?:.*\n)*" if line == ".*" else line + r"\n" for line in lines)


def commands(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a console or sh block, each with the output that is shown under it. Raises PageError."""
    if block.language == "sh":
        lines = block.text.replace("\\\n", "").splitlines()
        return [(line, "") for line in lines if line and not line.startswith("#")]
    found: list[tuple[str, str]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif not found:
            raise PageError(f"{block}: a console block begins with `$ command`")
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found
