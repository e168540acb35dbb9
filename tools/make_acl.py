"""Writes acl/ from the code: for each role the line of `users.acl` for a Redis user that has it.

`python tools/make_acl.py` writes the files, `--check` says which differ and exits 1 if any does. `eventq acl` prints the same
lines, for other prefixes too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from eventq.permissions import Role, acl_user

FOLDER: Final = Path(__file__).resolve().parents[1] / "acl"


def main() -> int:
    """Write the files, or compare them with `--check`."""
    made = files()
    differing = {name: text for name, text in made.items() if not _is_same(FOLDER / name, text)}
    foreign = sorted({path.name for path in FOLDER.glob("*")} - set(made))
    if "--check" in sys.argv:
        print("\n".join(f"acl/{name} is not what the code says" for name in [*differing, *foreign]) or "acl: as the code")
        return 1 if differing or foreign else 0
    FOLDER.mkdir(exist_ok=True)
    for name, text in differing.items():
        (FOLDER / name).write_text(text)
        print(f"acl/{name} written")
    return 0


def files() -> dict[str, str]:
    """Return the text of every file by its name."""
    return {f"{role}.acl": acl_user(f"eventq-{role}", "secret", [role]) + "\n" for role in Role}


def _is_same(file: Path, text: str) -> bool:
    return file.exists() and file.read_text() == text


if __name__ == "__main__":
    sys.exit(main())
