"""The commands that only look, as typer sees them."""

from __future__ import annotations

from typing import Annotated

import typer

from eventq.cli.arguments import LOOKING, JobId, Json, JsonLines, Prefix, QueueName, SigningKeysFile, Tag, Url, Yes
from eventq.cli.runtime import exit_codes

__all__ = ["add_looking"]


def add_looking(app: typer.Typer) -> None:
    """Add them."""
    for command in (queues, jobs, job, schedules, schedule, doctor):
        app.command(rich_help_panel=LOOKING)(command)


def queues(*, url: Url = None, prefix: Prefix = "eventq", as_json: JsonLines = False) -> None:
    """List every queue of the server: jobs in each state, paused or not."""
    with exit_codes():
        from eventq.cli.opening import Place
        from eventq.cli.queues import print_queues

        print_queues(Place(url=url, prefix=prefix), as_json=as_json)


def jobs(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    state: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", help="Only jobs in this state; may be given again.", show_default="all"),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", help="Only jobs of this name, of the first 10,000 from --start on.", show_default="all"),
    ] = None,
    start: Annotated[int, typer.Option(min=0, help="Of each state, leave out so many.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Of each state, show at most so many.")] = 25,
    oldest_first: Annotated[
        bool, typer.Option("--oldest-first", help="The head of the line, or the oldest, first; else the newest.")
    ] = False,
    signing_keys: SigningKeysFile = None,
    as_json: JsonLines = False,
) -> None:
    """List a queue's jobs, a page of each state. What follows the page is told on stderr."""
    with exit_codes():
        from eventq.cli.jobs import JobsWanted, print_jobs
        from eventq.cli.opening import Place
        from eventq.cli.selection import check_state
        from eventq.states import JobState

        states = tuple(check_state(each, list(JobState)) for each in dict.fromkeys(state or []))
        wanted = JobsWanted(states=states, name=name, start=start, limit=limit, oldest_first=oldest_first)
        print_jobs(queue, Place(url=url, prefix=prefix, tag=tag, signing_keys=signing_keys), wanted, as_json=as_json)


def job(
    queue: QueueName,
    job_id: JobId,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    signing_keys: SigningKeysFile = None,
    as_json: Json = False,
) -> None:
    """Show everything about one job and what happened to it: waits, attempts, errors, progress, logs.

    The history is read from the queue's events, from the newest back to when the job was added. Whether its signature is good is
    said where there are signing keys.
    """
    with exit_codes():
        from eventq.cli.job import print_job
        from eventq.cli.opening import Place

        print_job(queue, job_id, Place(url=url, prefix=prefix, tag=tag, signing_keys=signing_keys), as_json=as_json)


def schedules(
    queue: QueueName, *, url: Url = None, prefix: Prefix = "eventq", tag: Tag = None, as_json: JsonLines = False
) -> None:
    """List a queue's schedules by their next run, those that are paused or have ended last."""
    with exit_codes():
        from eventq.cli.opening import Place
        from eventq.cli.schedules import print_schedules

        print_schedules(queue, Place(url=url, prefix=prefix, tag=tag), as_json=as_json)


def schedule(
    queue: QueueName,
    schedule_id: Annotated[str, typer.Argument(metavar="ID", help="The schedule's id.")],
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    runs: Annotated[int, typer.Option("--runs", min=1, max=1000, help="How many of its next runs to show.")] = 5,
    as_json: Json = False,
) -> None:
    """Show one schedule and when it runs next. `pause`, `resume` and `remove` take --schedule ID."""
    with exit_codes():
        from eventq.cli.opening import Place
        from eventq.cli.schedules import print_schedule

        print_schedule(queue, schedule_id, Place(url=url, prefix=prefix, tag=tag), runs, as_json=as_json)


def doctor(
    queue: Annotated[
        list[str] | None, typer.Argument(metavar="[QUEUE]...", help="Only these queues.", show_default="all")
    ] = None,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    every: Annotated[bool, typer.Option("--all", help="Look at every job, not at a sample.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is safe to mend of the queues, then look at all.")] = False,
    lost_jobs: Annotated[
        bool, typer.Option("--lost-jobs", help="With --repair: also where more jobs are lost than stored, remove what is left.")
    ] = False,
    forget_readers: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="With --repair: durable readers away for longer, 1d at least.", show_default="none"),
    ] = None,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Examine server and queues and say what is wrong, and what to do about it. Changes nothing without --repair.

    Exit code 0: no problems, perhaps warnings. 1: problems, with --repair: that are left.
    """
    with exit_codes():
        from eventq.cli.doctor import run_doctor
        from eventq.cli.doctor_repair import treatment
        from eventq.cli.opening import Place

        ordered = treatment(every=every, repair=repair, yes=yes, lost_jobs=lost_jobs, forget_readers=forget_readers)
        raise typer.Exit(run_doctor(queue or [], Place(url=url, prefix=prefix), ordered, as_json=as_json))
