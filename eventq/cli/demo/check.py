"""The demo's proof: the folder read once more, by other means, and compared with what the jobs said.

Nothing here uses the counting of `files.py`: whole lines instead of chunks, `os.walk` instead of `os.scandir`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote_from_bytes

from eventq.cli.demo.files import FileFacts, path_of, shown_name
from eventq.cli.demo.tally import Failure

__all__ = ["Answer", "Check", "Sums", "check_folder"]

#: What is known of a file: its numbers, or why there are none. None: nothing.
Answer = FileFacts | Failure | None

#: Nanoseconds by which a file's own clock may lag behind ours.
_COARSE_NS: Final = 20_000_000
_NOT_UTF8: Final = UnicodeDecodeError.__name__


@dataclass(slots=True)
class Sums:
    """One side of the comparison."""

    files: int = 0
    decodable: int = 0
    lines: int = 0
    words: int = 0
    bytes: int = 0
    not_utf8: list[str] = field(default_factory=list[str])
    unreadable: list[str] = field(default_factory=list[str])
    _hash: Any = field(default_factory=hashlib.sha256)

    @property
    def digest(self) -> str:
        """The digest of `sha256  path` lines of the files that could be decoded, in order of their paths."""
        digest: str = self._hash.hexdigest()
        return digest

    def add(self, file: str, answer: Answer) -> None:
        """Count a file; they come in order."""
        self.files += 1
        if isinstance(answer, FileFacts):
            self.decodable += 1
            self.lines += answer.lines
            self.words += answer.words
            self.bytes += answer.bytes
            self._hash.update(f"{answer.sha256}  {file}\n".encode())
        elif isinstance(answer, Failure) and answer.type == _NOT_UTF8:
            self.not_utf8.append(file)
        else:
            self.unreadable.append(file)


@dataclass(slots=True)
class Check:
    """What came of it. notes: files that changed, came or went meanwhile, on neither side. differences: all wrong."""

    jobs: Sums = field(default_factory=Sums)
    walk: Sums = field(default_factory=Sums)
    notes: list[str] = field(default_factory=list[str])
    differences: list[str] = field(default_factory=list[str])


def check_folder(folder: str, outcomes: Mapping[str, Answer], *, began_ns: int, left_out: frozenset[str] = frozenset()) -> Check:
    """Walk the folder and compare. began_ns: when the files were listed; what changed later is noted, not counted."""
    check = Check()
    walked = dict(_walk(folder, left_out))
    for file in sorted(outcomes.keys() | walked.keys()):
        said, found = outcomes.get(file), walked.get(file)
        if not _same(said, found) and (change := _change(folder, file, said, found, began_ns - _COARSE_NS)):
            check.notes.append(f"{shown_name(file)}: {change}")
            continue
        if file in outcomes:
            check.jobs.add(file, said)
        if file in walked:
            check.walk.add(file, found)
        if not _same(said, found):
            check.differences.append(f"{shown_name(file)}: the job says {_text(said)}, the walk {_text(found)}")
    return check


def _walk(folder: str, left_out: frozenset[str]) -> list[tuple[str, Answer]]:
    found: list[tuple[str, Answer]] = []
    root = os.fsencode(folder)
    names_out = frozenset(map(os.fsencode, left_out))
    for where, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in names_out]
        for name in files:
            path = os.path.join(where, name)
            if os.path.isfile(path) and not os.path.islink(path):
                found.append((quote_from_bytes(os.path.relpath(path, root)), _read(path)))
    return found


def _read(path: bytes) -> Answer:
    lines = words = 0
    try:
        with open(path, encoding="utf-8", newline="\n") as text:
            for line in text:
                lines += 1
                words += len(line.split())
        with open(path, "rb") as raw:
            digest = hashlib.file_digest(raw, "sha256").hexdigest()
            return FileFacts(raw.tell(), lines, words, digest)
    except (OSError, UnicodeDecodeError) as error:
        return Failure(type(error).__name__, str(error), 0)


def _same(said: Answer, found: Answer) -> bool:
    if isinstance(said, Failure) and isinstance(found, Failure):
        return said.type == found.type
    return said is not None and said == found


def _change(folder: str, file: str, said: Answer, found: Answer, began_ns: int) -> str:
    """Return how the file itself explains that the answers differ, '' when it does not."""
    try:
        status = os.lstat(path_of(folder, file))
    except OSError:
        return "gone, read before" if isinstance(said, FileFacts) else "gone before it was read"
    if status.st_ctime_ns < began_ns:
        return ""
    return "new" if said is None and found is not None else "changed meanwhile"


def _text(answer: Answer) -> str:
    if answer is None:
        return "nothing"
    if isinstance(answer, Failure):
        return f"{answer.type}: {answer.message}"
    return f"{answer.lines} lines, {answer.words} words, {answer.bytes} bytes, sha256 {answer.sha256[:12]}…"
