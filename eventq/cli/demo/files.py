"""The demo's work: which files there are, and the job that reads one, a chunk at a time."""

from __future__ import annotations

import codecs
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eventq.job import Job

__all__ = ["LEFT_OUT", "FileFacts", "FileJob", "counting", "list_files", "path_of", "shown_name"]

#: A file larger than this is read in several steps, and tells its progress after each.
CHUNK: Final = 64 * 1024
#: Folders that are left out of Python's standard library: what is installed there, and what Python makes by itself.
LEFT_OUT: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True, slots=True)
class FileJob:
    """A job's data. file: the path in the folder, percent-encoded, since names are bytes and need not be UTF-8."""

    file: str


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A job's result."""

    bytes: int
    lines: int
    words: int
    sha256: str


def list_files(folder: str, left_out: frozenset[str] = frozenset()) -> list[str]:
    """Return every regular file below the folder, as FileJob says it, in order. No links, no unreadable folders."""
    return sorted(_files(os.fsencode(folder), b"", frozenset(map(os.fsencode, left_out))))


def _files(folder: bytes, below: bytes, left_out: frozenset[bytes]) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # no permission, or gone since it was listed; the check says the same of it
        return
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            yield quote_from_bytes(below + entry.name)
        elif entry.is_dir(follow_symlinks=False) and entry.name not in left_out:
            yield from _files(entry.path, below + entry.name + b"/", left_out)


def path_of(folder: str, file: str) -> bytes:
    """Return where a file is."""
    return os.path.join(os.fsencode(folder), unquote_to_bytes(file))


def shown_name(file: str) -> str:
    """Return a file's name as text, still to be made plain."""
    return os.fsdecode(unquote_to_bytes(file))


def counting(folder: str) -> Callable[[Job[FileJob, FileFacts]], FileFacts]:
    """Return the processor for the files of a folder.

    A plain function, which a worker runs in a thread: reading blocks. Raises UnicodeDecodeError for what is not UTF-8,
    OSError for what cannot be read.
    """

    def count(job: Job[FileJob, FileFacts]) -> FileFacts:
        with open(path_of(folder, job.data.file), "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            counter = _Counter()
            while chunk := file.read(CHUNK):
                counter.take(chunk)
                if size > CHUNK:
                    _ = job.update_progress(min(100, round(100 * counter.bytes / size)))
                if job.cancelled:
                    raise InterruptedError("the worker is closing")
            return counter.end()

    return count


class _Counter:
    """Counts bytes, lines and words of a text that comes in pieces, cut anywhere."""

    def __init__(self) -> None:
        self.bytes = 0
        self._lines = 0
        self._words = 0
        self._hash = hashlib.sha256()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._last = "\n"

    def take(self, chunk: bytes) -> None:
        self.bytes += len(chunk)
        self._hash.update(chunk)
        self._count(self._decoder.decode(chunk))

    def end(self) -> FileFacts:
        """Return the sums; a last line without a line end is a line too."""
        self._count(self._decoder.decode(b"", final=True))
        return FileFacts(self.bytes, self._lines + (self._last != "\n"), self._words, self._hash.hexdigest())

    def _count(self, text: str) -> None:
        if not text:
            return
        self._lines += text.count("\n")
        # A word that goes on from the last piece was counted there.
        goes_on = not self._last.isspace() and not text[0].isspace()
        self._words += len(text.split()) - goes_on
        self._last = text[-1]
