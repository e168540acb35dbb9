"""How the site is made: `make docs`. Its pages are docs/ and what is linked from there, so the root is the repository's."""

import importlib.metadata
from pathlib import Path

from pygments.lexers import TextLexer
from sphinx.application import Sphinx

project = "eventq"
author = "eventq contributors"
release = importlib.metadata.version("eventq")

extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "SECURITY.md", "benchmarks/README.md"]
exclude_patterns = [".*", "build", "**/node_modules"]
html_theme = "furo"
html_title = f"eventq {release}"
html_show_sphinx = False
html_show_copyright = False

# Links point at headings, as they do where the pages are read as Markdown.
myst_heading_anchors = 3

#: The sidebar. It is put under the index here, so that the page itself stays plain Markdown.
CONTENTS = {
    "Learn": ["tutorial"],
    "How to": [
        "adding",
        "retries",
        "schedules",
        "progress",
        "events",
        "managing",
        "sync",
        "typing",
        "testing",
        "deploys",
        "metrics",
        "dashboards-and-alerts",
        "tracing",
        "runbook",
        "production",
        "signing",
        "bullmq",
    ],
    "Exactly": [
        "delivery",
        "reliability",
        "reference/options",
        "reference/events",
        "reference/metrics",
        "reference/api",
        "reference/cli",
    ],
    "Project": ["/README", "/ARCHITECTURE", "/CHANGELOG", "/SECURITY", "releasing", "/benchmarks/README"],
}


def add_contents(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the table of contents to the index."""
    if docname == root_doc:
        for caption, pages in CONTENTS.items():
            source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def add_front_door(app: Sphinx, error: Exception | None) -> None:
    """Lead from the top of the site to the index."""
    if error is None:
        Path(app.outdir, "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n')


def setup(app: Sphinx) -> None:
    """Connect what is done here to Sphinx."""
    for language in ("conf", "mermaid"):
        app.add_lexer(language, TextLexer)
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_front_door)
