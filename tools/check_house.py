"""House rules that no linter knows: sizes, sleeping tests, empty handlers, clocks below the client, links in the docs.

Run from anywhere: `python tools/check_house.py`. Prints one line per finding and exits 1 if there is any.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MODULE_LINES = 400
FUNCTION_LINES = 40
LUA_LINES = 120

#: L0 to L2 of the layers: plain data and functions, which get time, chance and settings handed to them.
#: ids.py is the exception: time and chance are what it is made of.
PURE = re.compile(
    r"eventq/(commands/.*|(backoff|codec|durations|errors|events|keys|limits|options|outcome|records|scripts|states"
    r"|tracing)\.py)"
)
IMPURE = re.compile(
    r"(time\.(time|time_ns|monotonic|monotonic_ns|sleep)|(datetime\.)?datetime\.(now|utcnow|today)"
    r"|random\.(?!Random$)\w+|secrets\.\w+|os\.(environ|getenv|urandom)|uuid\.uuid\d)"
)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def main() -> int:
    """Check every file that git knows or would add."""
    paths = [Path(name) for name in _files()]
    findings = sorted(set(_findings(paths)))
    print("\n".join(findings) if findings else f"house rules: {len(paths)} files, nothing to say")
    return 1 if findings else 0


def _files() -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def _findings(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        text = (ROOT / path).read_text(errors="replace") if path.suffix in (".py", ".lua", ".md") else ""
        if path.suffix == ".py":
            yield from _check_python(path, text)
        elif path.suffix == ".lua" and path.is_relative_to("eventq"):
            yield from _check_length(path, text, LUA_LINES)
        elif path.suffix == ".md":
            yield from _check_links(path, text)


def _check_python(path: Path, text: str) -> Iterator[str]:
    tree = ast.parse(text, str(path))
    if path.parts[0] in ("eventq", "exporters"):
        yield from _check_length(path, text, MODULE_LINES)
        yield from _check_functions(path, tree)
    if path.parts[0] == "tests":
        yield from _check_sleeps(path, tree, text.splitlines())
    if PURE.fullmatch(path.as_posix()):
        yield from _check_purity(path, tree)
    yield from _check_handlers(path, tree)


def _check_length(path: Path, text: str, most: int) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > most:
        yield f"{path}: {lines} lines, at most {most}"


def _check_functions(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
        lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
        if lines > FUNCTION_LINES:
            yield f"{path}:{node.lineno}: {node.name} has {lines} lines, at most {FUNCTION_LINES}"


def _check_sleeps(path: Path, tree: ast.Module, lines: list[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or _dotted(node.func).rpartition(".")[2] != "sleep":
            continue
        gives_way = len(node.args) == 1 and isinstance(node.args[0], ast.Constant) and node.args[0].value == 0
        written = lines[node.lineno - 1 : node.end_lineno]
        if not gives_way and not any(re.search(r"# sleep-ok: \S", line) for line in written):
            yield f"{path}:{node.lineno}: a test that sleeps; wait for what it waits for, or say `# sleep-ok: why`"


def _check_purity(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and IMPURE.fullmatch(_dotted(node)):
            yield f"{path}:{node.lineno}: {_dotted(node)} below the client; have it handed in"
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                if IMPURE.fullmatch(f"{node.module}.{name.name}"):
                    yield f"{path}:{node.lineno}: {node.module}.{name.name} below the client; have it handed in"


def _check_handlers(path: Path, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and all(_is_nothing(statement) for statement in node.body):
            yield f"{path}:{node.lineno}: a handler that does nothing; handle it, or say contextlib.suppress and why"


def _check_links(path: Path, text: str) -> Iterator[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for target in LINK.findall(prose):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        page = (ROOT / path).parent / name if name else ROOT / path
        if not page.exists():
            yield f"{path}: link to {target}, which is not there"
        elif anchor and page.suffix == ".md" and anchor not in _anchors(page.read_text()):
            yield f"{path}: link to {target}, and no heading there has that name"


def _anchors(text: str) -> set[str]:
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ +(.*?) *#*$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _is_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return True
    return isinstance(statement, ast.Pass)


if __name__ == "__main__":
    sys.exit(main())
