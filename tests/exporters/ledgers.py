"""Loads whose outcome is known beforehand, and what an exporter must show of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from eventq import Backoff, Job, JobOptions, NewJob, Queue, Worker

from .scrapes import Series, total

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("welcome", "digest", "invoice")
OPTIONS = JobOptions(attempts=3, backoff=Backoff.fixed(0))


class Wrong(Exception):
    """What the processor of these loads raises."""


async def process(job: Job[int]) -> int:
    """Fail every tenth job in each attempt, every other tenth in its first one."""
    if job.data % 10 == 0 or (job.data % 10 == 1 and job.attempt == 1):
        raise Wrong("as agreed")
    return job.data


class Ledger:
    """What is added here, and so what must come of it."""

    def __init__(self) -> None:
        self.expected: Counter[tuple[str, str]] = Counter()
        self.jobs = 0

    async def add(self, queue: Queue[Any, Any], count: int) -> None:
        """Add so many jobs of all names, and write down what will become of them."""
        jobs: list[NewJob[int]] = []
        for _ in range(count):
            number, self.jobs = self.jobs, self.jobs + 1
            name = NAMES[number // 10 % len(NAMES)]
            jobs.append(NewJob(name, number, OPTIONS))
            fails, failed = {0: (2, 1), 1: (1, 0)}.get(number % 10, (0, 0))
            self.expected.update(
                {
                    ("eventq_jobs_added_total", name): 1,
                    ("eventq_job_attempts_started_total", name): 1 + fails,
                    ("eventq_job_attempts_failed_total", name): fails + failed,
                    ("eventq_jobs_retried_total", name): fails,
                    ("eventq_jobs_finished_total", name): 1,
                    ("eventq_jobs_completed_total", name): 1 - failed,
                    ("eventq_jobs_failed_total", name): failed,
                    ("eventq_jobs_retries_exhausted_total", name): failed,
                    ("eventq_jobs_stalled_total", name): 0,
                    ("eventq_jobs_released_total", name): 0,
                    ("eventq_job_errors_total", name): fails + failed,
                }
            )
        await queue.add_bulk(jobs)

    def of(self, metric: str) -> int:
        """Return what is expected of a metric, over all names."""
        return sum(n for (name, _), n in self.expected.items() if name == metric)

    @property
    def counts(self) -> dict[str, int]:
        """What is expected of the histograms: `_count` by metric and outcome."""
        return {
            "eventq_job_wait_seconds": self.of("eventq_job_attempts_started_total"),
            "eventq_job_total_seconds": self.of("eventq_jobs_finished_total"),
            "eventq_job_attempts_per_job": self.of("eventq_jobs_finished_total"),
            "eventq_job_processing_seconds": self.of("eventq_jobs_finished_total") + self.of("eventq_jobs_retried_total"),
        }

    def differences(self, queue: str, samples: Mapping[Series, float], *, histograms: bool = True) -> dict[str, float]:
        """Return by how much what is shown differs from what there was, where it does.

        histograms: with what only events tell, which a loss of events leaves out: histograms, and errors by type.
        """
        found: dict[str, float] = {}
        for (metric, name), n in self.expected.items():
            if metric == "eventq_job_errors_total" and not histograms:
                continue
            shown = total(samples, metric, queue=queue, job_name=name)
            if shown != n:
                found[f"{metric} {name}"] = shown - n
        for metric, n in self.counts.items() if histograms else ():
            shown = total(samples, f"{metric}_count", queue=queue)
            if shown != n:
                found[metric] = shown - n
        return found


async def drained(queue: Queue[Any, Any], timeout: float = 60) -> None:
    """Return once nothing is left to run."""
    async with asyncio.timeout(timeout):
        while True:
            counts = await queue.get_job_counts()
            if not counts["active"] and not await queue.count():  # type: ignore[index]
                return
            await asyncio.sleep(0.02)  # sleep-ok: workers elsewhere give no news


def worker(queue: Queue[Any, Any], *, lease: float = 15.0) -> Worker[Any, Any]:
    """Return a worker for these loads."""
    return Worker(queue, process, concurrency=50, lease=lease)
