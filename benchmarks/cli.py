"""The command line: choose, run the rounds, print the report, write the JSON file."""

import argparse
import dataclasses
import json
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.harness import CHUNK, Harness, RunFailed
from benchmarks.peers import Peer, available, versions
from benchmarks.plan import QUICK, WORKLOADS, Sizes, Step, one_round
from benchmarks.processes import wait_until_quiet
from benchmarks.report import render
from benchmarks.results import Results, Sample
from benchmarks.server import Server

PEERS = ("eventq", "bullmq", "raw")
#: Seconds to wait for a quiet machine before each run.
PATIENCE = 10.0
RESULTS = Path(__file__).resolve().parent / "results" / "latest.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmarks; a missed target is reported, not an error, since machines are noisy."""
    options = _parse(argv)
    sizes = QUICK if options.quick else Sizes()
    if options.jobs:
        sizes = dataclasses.replace(sizes, most=options.jobs)
    rounds = 1 if options.quick and options.rounds is None else options.rounds or 5
    # So that the server and the workers are ended on a polite kill too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    peers, skipped = available(options.peers)
    for name, reason in skipped.items():
        _say(f"{name} left out: {reason}")
    if not peers:
        return 1
    results = Results()
    interrupted = False
    with Server(options.server) as server:
        setting = _setting(server, peers, rounds)
        _say(f"{setting['server']} on port {server.port}, persistence {setting['persistence']}")
        try:
            with Harness(server) as harness:
                for number in range(1, rounds + 1):
                    for step in one_round(number, peers, options.only, sizes):
                        _run(harness, step, number, results)
        except KeyboardInterrupt:
            interrupted = True
            setting["complete"] = "no, interrupted"
    print(render(results, setting, skipped))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    document = {"setting": setting, "skipped": skipped, **results.as_json()}
    options.json.write_text(json.dumps(document, indent=1) + "\n")
    _say(f"figures in {options.json}")
    return 130 if interrupted else 0


def _run(harness: Harness, step: Step, number: int, results: Results) -> None:
    name = f"round {number}: {step.work} {step.peer.name}" + (f" c={step.concurrency}" if step.concurrency else "")
    wait_until_quiet(PATIENCE)
    try:
        figures = step.run(harness, step.peer)
    except RunFailed as failure:
        results.failures.append(f"{name}: {failure}")
        return _say(f"{name}: FAILED: {failure}")
    results.add(Sample(step.work, step.peer.name, step.concurrency, number, figures))
    shown = ("rate", "worker_us", "client_us", "script_us", "bytes", "requests")
    _say(f"{name}: " + ", ".join(f"{key} {figures[key]:,.1f}" for key in shown if key in figures))


def _setting(server: Server, peers: Sequence[Peer], rounds: int) -> dict[str, str]:
    """What a reader must know to judge the figures."""
    return {
        "machine": f"{platform.machine()}, {_processor()}, {platform.system()} {platform.release()}",
        **versions(peers),
        **server.describe(),
        "connection": "loopback TCP, one server for all, flushed before each run",
        "eventq": "events, results and default retention (10,000 completed) on; tracing off",
        "bullmq's settings": "its defaults (events on, results kept, keeps every completed job)",
        "jobs": f"100 bytes of JSON data; bulk adds of {CHUNK:,} a call",
        "rounds": str(rounds),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A parser of a comma-separated choice."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
        return chosen

    return parse


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure eventq beside BullMQ on Node.")
    for option, known in (("--only", WORKLOADS), ("--peers", PEERS)):
        text = f"all, or some of {','.join(known)}"
        parser.add_argument(option, type=_names(known), default=known, metavar="NAME,...", help=text)
    parser.add_argument("--rounds", type=int, help="rounds, peers in turn in each (default 5; 1 with --quick)")
    parser.add_argument("--server", choices=("redis", "valkey"), help="default: redis-server when in PATH, else Valkey")
    parser.add_argument("--jobs", type=int, help="at most this many jobs in a run")
    parser.add_argument("--json", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work, not how fast it is")
    return parser.parse_args(argv)
