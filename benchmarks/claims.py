"""The claims, each with its target and how the samples answer it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Literal

from benchmarks.plan import LEVELS, TOP
from benchmarks.results import Results, ratios

#: Node is taken at whichever of these serves it best.
NODE_LEVELS = [level for level in LEVELS if level > 1]


@dataclass(frozen=True, slots=True)
class Claim:
    """One line of the table: what is claimed, its bound, and one value per round."""

    name: str
    kind: Literal["at least", "at most"]
    bound: float
    unit: str
    digits: int
    values: Callable[[Results], list[float]]

    @property
    def target(self) -> str:
        """The bound in words."""
        return f"{self.kind} {self.bound:g} {self.unit}"

    def met(self, values: list[float]) -> bool:
        """Whether the median keeps the bound."""
        return median(values) >= self.bound if self.kind == "at least" else median(values) <= self.bound


def _best_of_node(results: Results, figure: str, better: Callable[[list[float]], float]) -> dict[int, float]:
    """Round by round, Node at the concurrency that serves it best."""
    by_level = [results.rounds(figure, "drain", "bullmq", level) for level in NODE_LEVELS]
    numbers = {number for level in by_level for number in level}
    return {number: better([level[number] for level in by_level if number in level]) for number in numbers}


def _drain(results: Results) -> list[float]:
    return ratios(results.rounds("rate", "drain", "eventq", TOP), _best_of_node(results, "rate", max))


def _script(results: Results) -> list[float]:
    return ratios(results.rounds("script_us", "drain", "eventq", TOP), _best_of_node(results, "script_us", min))


def _one(results: Results) -> list[float]:
    return ratios(results.rounds("rate", "drain", "eventq", 1), results.rounds("rate", "drain", "bullmq", 1))


def _beside_node(work: str) -> Callable[[Results], list[float]]:
    return lambda results: ratios(results.rounds("rate", work, "eventq"), results.rounds("rate", work, "bullmq"))


def _concurrent(results: Results) -> list[float]:
    return ratios(results.rounds("rate", "concurrent", "eventq"), results.rounds("rate", "add", "eventq"))


def _raw(results: Results) -> list[float]:
    return ratios(results.rounds("rate", "drain", "eventq", TOP), results.rounds("rate", "drain", "raw", TOP))


def _bytes(results: Results) -> list[float]:
    return list(results.rounds("bytes", "memory", "eventq").values())


def _requests(results: Results) -> list[float]:
    return list(results.rounds("requests", "idle", "eventq", TOP).values())


CLAIMS = (
    Claim("drain of no-op jobs, concurrency 100", "at least", 3.0, "x Node at its best", 2, _drain),
    Claim("script time per job on the server, concurrency 100", "at most", 0.3, "x Node's least", 3, _script),
    Claim("drain of no-op jobs, concurrency 1", "at least", 0.95, "x Node", 2, _one),
    Claim("sequential add", "at least", 0.95, "x Node", 2, _beside_node("add")),
    Claim("bulk add, 1,000 a call", "at least", 6.0, "x Node", 2, _beside_node("bulk")),
    Claim("100 concurrent adds", "at least", 5.0, "x sequential", 2, _concurrent),
    Claim("waiting job with 100 bytes of data", "at most", 350.0, "bytes", 0, _bytes),
    Claim("idle worker", "at most", 2.0, "requests/s", 2, _requests),
)

#: Shown beside the claims, with no target.
LIMIT = ("drain of no-op jobs, concurrency 100, of the raw limit", 2, _raw)


def judged(results: Results) -> Iterator[tuple[Claim, list[float]]]:
    """Each claim with its values; a claim without any is told as not measured."""
    for claim in CLAIMS:
        yield claim, claim.values(results)
