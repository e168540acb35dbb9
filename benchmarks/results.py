"""Samples, and the questions the claims and the tables ask of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.workloads import Figures


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one run."""

    work: str
    peer: str
    concurrency: int
    round: int
    figures: Figures


@dataclass(slots=True)
class Results:
    """Everything a session measured."""

    samples: list[Sample] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        """Keep a sample."""
        self.samples.append(sample)

    def rounds(self, figure: str, work: str, peer: str, concurrency: int = 0) -> dict[int, float]:
        """One figure by round."""
        return {
            sample.round: sample.figures[figure]
            for sample in self.samples
            if (sample.work, sample.peer, sample.concurrency) == (work, peer, concurrency)
        }

    def runs(self, work: str) -> Iterator[tuple[str, int, Mapping[str, Sequence[float]]]]:
        """The runs of a workload by peer and concurrency, each figure as a list over the rounds."""
        mine = [sample for sample in self.samples if sample.work == work]
        for peer, concurrency in dict.fromkeys((sample.peer, sample.concurrency) for sample in mine):
            chosen = [sample.figures for sample in mine if (sample.peer, sample.concurrency) == (peer, concurrency)]
            yield peer, concurrency, {name: [figures[name] for figures in chosen] for name in chosen[0]}

    def as_json(self) -> dict[str, Any]:
        """What goes into the JSON file."""
        return {"samples": [asdict(sample) for sample in self.samples], "failures": self.failures}


def ratios(ours: Mapping[int, float], theirs: Mapping[int, float]) -> list[float]:
    """Pair by pair: a round's value of ours by the same round's value of theirs."""
    return [value / theirs[number] for number, value in ours.items() if number in theirs]


def spread(values: Sequence[float], digits: int) -> str:
    """The median, and the least and the greatest when there are several."""
    text = f"{median(values):,.{digits}f}"
    return text if len(values) == 1 else f"{text} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
