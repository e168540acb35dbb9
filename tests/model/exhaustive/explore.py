"""Breadth first through every state of a world, with the shortest way to whatever breaks a promise."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field

from .same import sameness
from .steps import RANK, Model, check
from .telling import tell
from .world import State, Violation, World


@dataclass
class Exploration:
    """What was found. `trace` leads to `violation`; without one, every state was looked at."""

    world: World
    off: frozenset[str]
    states: int = 0
    steps: int = 0
    depth: int = 0
    seconds: float = 0.0
    violation: str = ""
    trace: list[str] = field(default_factory=lambda: [])

    def __str__(self) -> str:
        what = f"{self.states:,} states, {self.steps:,} steps, {self.depth} deep, {self.seconds:.1f} s of CPU"
        without = f" without {', '.join(sorted(self.off))!r}" if self.off else ""
        if not self.violation:
            return f"{self.world.name}{without}: all of {what}: every promise holds"
        lines = [f"{at:3}. {line}" for at, line in enumerate(self.trace, 1)]
        return "\n".join([f"{self.world.name}{without}: {what}: {self.violation}", *lines])


def explore(world: World, off: frozenset[str] = frozenset()) -> Exploration:
    """Look at every state; stop at the first that breaks a promise, or from which a fair world does not finish every job."""
    search = _Search(world, off)
    began = time.process_time()
    search.run()
    if not search.found.violation:
        search.look_for_stuck()
    search.found.states, search.found.seconds = len(search.todo), time.process_time() - began
    return search.found


class _Search:
    """States in the order in which they were found, each with its parent and what a fair world makes of it."""

    def __init__(self, world: World, off: frozenset[str]) -> None:
        self.found = Exploration(world, off)
        self.todo = [world.start]
        self._fair: list[int] = []
        self._model = Model(world, off)
        self._numbers: dict[Hashable, int] = {sameness(world.start): 0}
        self._parents = [0]
        self._depths = [0]

    def run(self) -> None:
        """Go on until there is nothing new, or a promise is broken."""
        for number, state in enumerate(self.todo):
            self.found.depth = self._depths[number]
            try:
                self._fair.append(self._expand(number, state))
            except Violation as violation:
                last = self._model.tried
                self.found.violation, self.found.trace = str(violation), [*self._way_to(number), tell(last)]
                return

    def look_for_stuck(self) -> None:
        """Follow the fair way from every state: it has to come to an end of all jobs."""
        ends = bytearray(all(job.state in "CF" for job in state.jobs) for state in self.todo)
        for number in range(len(self.todo)):
            way: dict[int, None] = {}
            at = number
            while at >= 0 and not ends[at] and at not in way:
                way[at] = None
                at = self._fair[at]
            if at < 0 or not ends[at]:
                self.found.violation = "with nothing going wrong any more, a job never ends"
                self.found.trace = self._way_to(number)
                return
            for passed in way:
                ends[passed] = 1

    def _expand(self, number: int, state: State) -> int:
        """Note all that may come next; return what a fair world does, -1 for nothing."""
        best, best_rank = -1, len(RANK)
        for what, after in self._model.steps(state):
            self.found.steps += 1
            key = sameness(after)
            known = self._numbers.get(key)
            if known is None:
                self._model.tried = what
                check(self._model.world, after)
                known = self._numbers[key] = len(self.todo)
                self.todo.append(after)
                self._parents.append(number)
                self._depths.append(self._depths[number] + 1)
            rank = RANK.get(what[0], len(RANK))
            if rank < best_rank and known != number:
                best, best_rank = known, rank
        return best

    def _way_to(self, number: int) -> list[str]:
        lines: list[str] = []
        while number:
            before, after = self.todo[self._parents[number]], self.todo[number]
            lines.append(next(tell(what) for what, to in self._model.steps(before) if to == after))
            number = self._parents[number]
        return lines[::-1]
