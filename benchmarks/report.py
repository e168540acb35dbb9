"""The Markdown report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.claims import LIMIT, judged
from benchmarks.processes import DISTURBED
from benchmarks.results import Results, spread


@dataclass(frozen=True, slots=True)
class Table:
    """A workload's table: its title and (heading, figure, digits) for each column."""

    work: str
    title: str
    columns: tuple[tuple[str, str, int], ...]


_DRAIN = (
    ("jobs/s", "rate", 0),
    ("worker CPU us/job", "worker_us", 1),
    ("server CPU us/job", "server_us", 1),
    ("script us/job", "script_us", 1),
    ("script calls/job", "script_calls", 3),
    ("commands/job, Lua's included", "commands", 1),
    ("others' CPU, cores", "others_cores", 2),
)
_PRODUCE = (
    ("jobs/s", "rate", 0),
    ("client CPU us/job", "client_us", 1),
    ("server CPU us/job", "server_us", 1),
    ("script us/job", "script_us", 1),
    ("socket reads/job", "reads", 3),
)
TABLES = (
    Table("drain", "Drain: no-op jobs, one worker process", _DRAIN),
    Table("sleep", "Jobs of 10 ms, one worker process", _DRAIN),
    Table("add", "Sequential add", _PRODUCE),
    Table("concurrent", "100 concurrent adds", _PRODUCE),
    Table("bulk", "Bulk add", _PRODUCE),
    Table(
        "memory",
        "Memory",
        (("bytes/waiting job", "bytes", 0), ("stream bytes/job", "stream_bytes", 0), ("N", "jobs", 0)),
    ),
    Table(
        "idle",
        "Idle worker",
        (
            ("requests/s", "requests", 2),
            ("commands/s, Lua's included", "commands", 2),
            ("worker CPU ms/s", "worker_ms", 2),
            ("server CPU ms/s", "server_ms", 2),
        ),
    ),
)


def render(results: Results, setting: Mapping[str, str], skipped: Mapping[str, str]) -> str:
    """The whole report."""
    lines = ["# eventq: measured", "", *(f"- {name}: {value}" for name, value in setting.items())]
    lines += [f"- left out: {name}, because {reason}" for name, reason in skipped.items()]
    lines += ["", "Ratios are taken pair by pair within a round; shown is their median (least to greatest).", ""]
    lines += _claims(results)
    lines += _disturbance(results)
    for table in TABLES:
        lines += _table(results, table)
    if results.failures:
        lines += ["", "## Runs that gave no figure", "", *(f"- {failure}" for failure in results.failures)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(cells: Sequence[str]) -> list[str]:
    return [_row(cells), f"|{'---|' * len(cells)}"]


def _claims(results: Results) -> Iterator[str]:
    yield from _head(("claim", "target", "measured", "rounds", "met"))
    for claim, values in judged(results):
        if values:
            measured, met = f"{spread(values, claim.digits)} {claim.unit}", "yes" if claim.met(values) else "**no**"
        else:
            measured, met = "not measured", ""
        yield _row((claim.name, claim.target, measured, str(len(values)), met))
    name, digits, values_of = LIMIT
    if values := values_of(results):
        yield _row((name, "", f"{spread(values, digits)} x raw", str(len(values)), ""))


def _disturbance(results: Results) -> Iterator[str]:
    """How often somebody else's work shared the processors: ratios bear it, absolute figures do not."""
    others = [sample.figures["others_cores"] for sample in results.samples if "others_cores" in sample.figures]
    if others:
        disturbed = sum(cores > DISTURBED for cores in others)
        yield from ("", f"Drains during which others used more than {DISTURBED:g} cores: {disturbed} of {len(others)}.")


def _table(results: Results, table: Table) -> Iterator[str]:
    runs = list(results.runs(table.work))
    if not runs:
        return
    yield from ("", f"## {table.title}", "")
    yield from _head(("peer", "concurrency", *(heading for heading, _, _ in table.columns)))
    for peer, concurrency, figures in runs:
        cells = [spread(figures[name], digits) for _, name, digits in table.columns]
        yield _row((peer, str(concurrency or "-"), *cells))
