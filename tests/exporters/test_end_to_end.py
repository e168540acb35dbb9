"""Jobs fail, somebody is told; every panel shows something: a real server, exporter, Prometheus, Alertmanager.

All of it is what `make observe` starts, on a server of its own, with the times of the rules a hundred times shorter.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.error import HTTPError

import pytest

from eventq import NewJob, Queue, QueueScheduler
from eventq_prometheus.dashboards import PanelQuery, files, filled, queries
from eventq_prometheus.rules import rule_groups

from ..conftest import WaitUntil, skip_for
from ..servers import ServerKind, TestServer
from .stack_programs import Observed, missing_programs

pytestmark = pytest.mark.slow
#: An hour is 36 seconds, five minutes are 3, which are three scrapes.
SCALE = "1/100"
UP_SECONDS = 60.0
#: Seconds that Prometheus needs to find its targets, and then some.
SCRAPED_SECONDS = 45.0
#: Seconds until an alert goes out: rated, evaluated, grouped, and the same for its end, once 30 minutes are over: 18 s.
FIRE_SECONDS = 40.0
RESOLVE_SECONDS = 70.0
BURN, NO_WORKERS = "EventqJobErrorBudgetBurn", "EventqQueueHasNoWorkers"
DECLINED = {"seconds": 0.0, "fails": 1, "error": "CardDeclined"}


@dataclass
class Stack:
    """What runs, and where the jobs are."""

    url: str
    observed: Observed
    #: Failed charges that were asked for so far.
    declined: int = 0


@pytest.fixture(scope="module")
def stack(server_kind: ServerKind) -> Iterator[Stack]:
    """The stack under a load of which no payment fails; skips where Prometheus or Alertmanager is missing."""
    if reason := missing_programs():
        skip_for(reason)
    with TestServer(server_kind) as server, Observed("--url", server.url, "--time-scale", SCALE, "--trouble", "0") as observed:
        yield Stack(server.url, observed)


@pytest.fixture
async def scraped(stack: Stack, wait_until: WaitUntil) -> Observed:
    """The same, once Prometheus has seen the load twice."""
    await wait_until(lambda: stack.observed.is_up, UP_SECONDS)
    await wait_until(
        lambda: stack.observed.query('rate(eventq_jobs_finished_total{queue="payments"}[1m]) > 0'),
        SCRAPED_SECONDS,
        description="a second scrape",
    )
    return stack.observed


@pytest.mark.full
async def test_alerts_wait_fire_reach_their_receiver_and_resolve(stack: Stack, scraped: Observed, wait_until: WaitUntil) -> None:
    """The error budget of one queue burns, another has nobody to work: two alerts, one of which has to hold for a while."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_budget_burns(stack, wait_until))
        group.create_task(_nobody_works(stack, wait_until))
    counted = 'sum(eventq_jobs_failed_total{queue="payments", job_name="charge"})'
    await wait_until(
        lambda: scraped.value(counted) == stack.declined, SCRAPED_SECONDS, description="every failed job, and no other"
    )


async def _budget_burns(stack: Stack, wait_until: WaitUntil) -> None:
    """It has no `for`: it fires at once, and goes on for as long as half an hour of the rules says so."""
    observed = stack.observed
    assert set() == observed.alert_states(BURN, "payments")
    async with _declining(stack):
        await wait_until(lambda: observed.alert_states(BURN, "payments") == {"firing"}, FIRE_SECONDS, description="a burn alert")
        await wait_until(lambda: observed.delivered("page", "firing", BURN, "payments"), FIRE_SECONDS, description="its delivery")
    await wait_until(lambda: not observed.alert_states(BURN, "payments"), RESOLVE_SECONDS, description="its end")
    await wait_until(lambda: observed.delivered("page", "resolved", BURN, "payments"), FIRE_SECONDS, description="its all-clear")


async def _nobody_works(stack: Stack, wait_until: WaitUntil) -> None:
    """It has one: it is pending, and nobody is told, before it fires."""
    observed = stack.observed
    async with Queue("archive", url=stack.url) as archive:
        await archive.add("box")
        await wait_until(
            lambda: observed.alert_states(NO_WORKERS, "archive") == {"pending"}, FIRE_SECONDS, description="a pending alert"
        )
        assert not observed.delivered("page", "firing", NO_WORKERS, "archive")
        await wait_until(
            lambda: observed.alert_states(NO_WORKERS, "archive") == {"firing"}, FIRE_SECONDS, description="a firing one"
        )
        await wait_until(
            lambda: observed.delivered("page", "firing", NO_WORKERS, "archive"), FIRE_SECONDS, description="its delivery"
        )
        await archive.drain()
        await wait_until(
            lambda: observed.delivered("page", "resolved", NO_WORKERS, "archive"), FIRE_SECONDS, description="its all-clear"
        )


@asynccontextmanager
async def _declining(stack: Stack) -> AsyncGenerator[None]:
    """Have twenty payments a second fail, and count them."""

    async def decline() -> None:
        async with Queue("payments", url=stack.url) as payments:
            while not enough.is_set():
                await payments.add_bulk([NewJob("charge", DECLINED)] * 5)
                stack.declined += 5
                try:
                    await asyncio.wait_for(enough.wait(), 0.25)
                except TimeoutError:
                    continue

    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(decline())
        try:
            yield
        finally:
            enough.set()


async def test_the_watchdog_is_heard(scraped: Observed, wait_until: WaitUntil) -> None:
    """It goes to the dead man's switch, which says so once."""
    await wait_until(lambda: "the watchdog is heard: alerts are delivered" in scraped.output, FIRE_SECONDS)


async def test_first_failure_of_a_job_name_is_an_increase(stack: Stack, scraped: Observed, wait_until: WaitUntil) -> None:
    """Prometheus sees the series at 0 before it sees it at 1: a name that failed once, ever, is in the rates."""
    async with Queue("payments", url=stack.url) as payments:
        await payments.add("refund", DECLINED)
    seen = 'eventq_jobs_failed_total{queue="payments", job_name="refund"}'
    await wait_until(lambda: scraped.value(seen) == 1, SCRAPED_SECONDS, description="a failed refund")
    assert scraped.value(f"increase({seen}[1m])") > 0, scraped.query(f"{seen}[1m]")
    assert ["0", "1"] == [value for _, value in scraped.query(f"{seen}[1m]")[0]["values"]][:2]


@pytest.fixture
async def missed_slots(stack: Stack, scraped: Observed, wait_until: WaitUntil) -> None:
    """A schedule of whose slots some were missed: nobody is there to fire them, and then somebody comes."""
    late = 'time() - eventq_scheduler_next_run_timestamp_seconds{queue="calendar"} > 2'
    async with Queue("calendar", url=stack.url) as calendar:
        await calendar.upsert_schedule("hourly", every=1)
        await wait_until(lambda: scraped.query(late), SCRAPED_SECONDS, description="slots that nobody fires")
        async with QueueScheduler(calendar):
            await wait_until(lambda: _missed(calendar), SCRAPED_SECONDS, description="missed slots")
        await calendar.remove_schedule("hourly")
        await calendar.drain()


async def _missed(queue: Queue[Any, Any]) -> bool:
    schedule = await queue.get_schedule("hourly")
    return schedule is not None and schedule.missed_count > 0


@pytest.mark.usefixtures("missed_slots")
async def test_every_panel_of_every_dashboard_shows_something(scraped: Observed, wait_until: WaitUntil) -> None:
    """Each query of each panel runs and has series; `pytest -rP` shows how many."""
    counts: dict[PanelQuery, int] = {}

    def empty() -> list[PanelQuery]:
        missing = [query for query in queries() if not counts.get(query)]
        counts.update((query, _series(scraped, query)) for query in missing)
        return [query for query in missing if not counts[query]]

    try:
        await wait_until(lambda: not empty(), SCRAPED_SECONDS, description="data in every panel")
    finally:
        print("\n".join(f"{count:4} {query.dashboard:16} {query.panel}" for query, count in counts.items()))
    assert not empty()


def _series(observed: Observed, query: PanelQuery) -> int:
    try:
        return len(observed.query(filled(query.query)))
    except HTTPError as error:
        raise AssertionError(f"{query.dashboard}, {query.panel}: {query.query}\n{error.read().decode()}") from error


async def test_annotations_and_variables_of_the_dashboards_are_answered(scraped: Observed) -> None:
    """Marks of alerts and deploys are queries too; what one chooses from is there, but for namespaces, which Kubernetes gives."""
    for name, text in files().items():
        content = json.loads(text)
        marks = [each["expr"] for each in content["annotations"]["list"] if "expr" in each]
        assert marks, name
        for expression in marks:
            scraped.query(filled(expression))
        choices = {each["name"]: each["query"] for each in content["templating"]["list"] if each["type"] == "query"}
        assert {"job", "namespace", "queue"} == set(choices), name
        for variable, query in choices.items():
            selector, _, label = query.removeprefix("label_values(").removesuffix(")").rpartition(", ")
            values = {series[label] for series in scraped.ask("series", **{"match[]": filled(selector)}) if label in series}
            expected = {"job": {"eventq"}, "namespace": set[str](), "queue": {"emails", "images", "payments", "reports"}}[
                variable
            ]
            assert expected <= values, f"{name}: {query}: {values}"


async def test_every_rule_is_evaluated_without_an_error(scraped: Observed, wait_until: WaitUntil) -> None:
    """As Prometheus itself sees it, of every rule there is."""

    def health() -> dict[str, set[str]]:
        rules = [rule for group in scraped.ask("rules")["groups"] for rule in group["rules"]]
        found: dict[str, set[str]] = {}
        for rule in rules:
            found.setdefault(rule["name"], set()).add(rule["health"] + rule.get("lastError", ""))
        return found

    await wait_until(lambda: {"unknown"} not in health().values(), SCRAPED_SECONDS, description="a first evaluation")
    expected = {rule.name: {"ok"} for group in rule_groups() for rule in group.rules}
    assert expected == health()
