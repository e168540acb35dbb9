"""The demo's last words: what was done, both sides of the check, and whether they agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from eventq.cli.demo.files import shown_name
from eventq.cli.runtime import FATAL, OK
from eventq.cli.text import number, plain, seconds, shorten

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventq.cli.demo.check import Check, Sums
    from eventq.cli.demo.tally import Tally, Times

__all__ = ["differences", "sum_up"]

_MOST_NAMES: Final = 5
_LONGEST: Final = 400
_MOST_DIFFERENCES: Final = 20


def sum_up(tally: Tally, check: Check, *, kept_queue: str = "") -> int:
    """Print the summary and return the exit code. kept_queue: a queue that stays on somebody's server."""
    wrong = differences(tally, check)
    lines = [*_work(tally), "", *_table(check.jobs, check.walk), *_names("not UTF-8", check.jobs.not_utf8)]
    lines += _names("unreadable", check.jobs.unreadable)
    lines += [f"changed while running, not counted: {plain(note)}" for note in check.notes[:_MOST_DIFFERENCES]]
    lines += _more(check.notes, _MOST_DIFFERENCES)
    if kept_queue:
        lines.append(f"the queue {kept_queue} stays on the server: eventq events {kept_queue} --consumer me --url ...")
    lines.append("")
    if wrong:
        lines += [f"DIFFERENT: {plain(shorten(each, 400))}" for each in wrong[:_MOST_DIFFERENCES]]
        lines += _more(wrong, _MOST_DIFFERENCES)
    else:
        lines.append("OK: the jobs and a plain walk of the folder agree")
    print("\n".join(lines), flush=True)
    return FATAL if wrong else OK


def differences(tally: Tally, check: Check) -> list[str]:
    """Return everything that is not as it must be, in the events and between jobs and folder."""
    kinds = tally.kinds
    ends = kinds["completed"] + kinds["failed"]
    runs = ends + kinds["retrying"] + kinds["stalled"] + kinds["released"]
    claims = (
        (tally.gaps == 0 and tally.missing == 0, f"events: {max(tally.lost, tally.missing)} were lost"),
        (kinds["added"] == tally.total, f"events: {kinds['added']} jobs added, of {tally.total}"),
        (ends == tally.total, f"events: {ends} outcomes, of {tally.total} jobs"),
        (kinds["active"] == runs, f"events: {kinds['active']} runs started, {runs} ended"),
    )
    return [text for holds, text in claims if not holds] + check.differences


def _work(tally: Tally) -> list[str]:
    failed = ", ".join(f"{plain(name)} {number(count)}" for name, count in tally.errors.most_common())
    kinds = ", ".join(f"{kind} {number(count)}" for kind, count in sorted(tally.kinds.items()))
    lost = "none lost" if not (tally.gaps or tally.missing) else f"{number(max(tally.lost, tally.missing))} lost"
    return [
        f"jobs:    {number(tally.states['completed'])} completed, {number(tally.states['failed'])} failed"
        + (f" ({failed})" if failed else "")
        + f", {number(tally.kinds['retrying'])} retries, in {tally.elapsed:.2f} s ({number(tally.rate)} jobs/s)",
        f"times:   wait {_times(tally.waited)}; run {_times(tally.ran)}",
        f"events:  {number(tally.seen)} seen, {lost} ({kinds})",
    ]


def _times(times: Times) -> str:
    return f"p50 {seconds(times.percentile(0.5))}, p99 {seconds(times.percentile(0.99))}"


def _table(jobs: Sums, walk: Sums) -> list[str]:
    rows = [("", "jobs", "plain walk")]
    rows += [(what, number(ours), number(theirs)) for what, ours, theirs in _counts(jobs, walk)]
    rows.append(("digest", jobs.digest[:16], walk.digest[:16]))
    return [f"{what:<12}{ours:>18}{theirs:>18}".rstrip() for what, ours, theirs in rows]


def _counts(jobs: Sums, walk: Sums) -> list[tuple[str, int, int]]:
    return [
        ("files", jobs.files, walk.files),
        ("decodable", jobs.decodable, walk.decodable),
        ("lines", jobs.lines, walk.lines),
        ("words", jobs.words, walk.words),
        ("bytes", jobs.bytes, walk.bytes),
        ("not UTF-8", len(jobs.not_utf8), len(walk.not_utf8)),
        ("unreadable", len(jobs.unreadable), len(walk.unreadable)),
    ]


def _names(what: str, files: Sequence[str]) -> list[str]:
    if not files:
        return []
    names = ", ".join(plain(shown_name(file)) for file in files[:_MOST_NAMES])
    rest = f" and {number(len(files) - _MOST_NAMES)} more" if len(files) > _MOST_NAMES else ""
    return [f"{what}: {shorten(names, _LONGEST)}{rest}"]


def _more(items: Sequence[str], shown: int) -> list[str]:
    return [f"... and {number(len(items) - shown)} more"] if len(items) > shown else []
