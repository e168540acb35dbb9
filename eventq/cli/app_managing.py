"""The commands that change a queue, as typer sees them."""

from __future__ import annotations

from typing import Annotated

import typer

from eventq.cli.arguments import MANAGING, DryRun, Json, Prefix, QueueName, Tag, Url, Yes
from eventq.cli.runtime import exit_codes

__all__ = ["add_managing"]

JobIds = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of jobs.", show_default=False)]
ScheduleId = Annotated[
    str | None, typer.Option("--schedule", metavar="ID", help="Not the queue: this schedule of it.", show_default=False)
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default="no limit")]


def add_managing(app: typer.Typer) -> None:
    """Add them."""
    for command in (retry, promote, remove, pause, resume, drain, clean, obliterate, acl):
        app.command(rich_help_panel=MANAGING)(command)


def retry(
    queue: QueueName,
    ids: JobIds = None,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    every: Annotated[bool, typer.Option("--all", help="Every job of the state, the oldest first.")] = False,
    state: Annotated[str, typer.Option(help="failed or completed.")] = "failed",
    limit: Limit = None,
    reset_attempts: Annotated[bool, typer.Option("--reset-attempts", help="Count attempts from the beginning.")] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Put failed jobs back in line: those of these ids, or --all.

    Exit code 0: all of them. 1: some are not there, or in another state; the others are retried.
    """
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import retry_order
        from eventq.cli.selection import check_selection, check_state
        from eventq.states import FINISHED

        check_selection(ids, every=every, limit=limit)
        order = retry_order(ids or (), check_state(state, FINISHED), limit=limit, reset_attempts=reset_attempts)
        place = Place(url=url, prefix=prefix, tag=tag)
        raise typer.Exit(carry_out(order, queue, place, Consent(dry_run=dry_run), as_json=as_json))


def promote(
    queue: QueueName,
    ids: JobIds = None,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    every: Annotated[bool, typer.Option("--all", help="Every delayed job, the one that is due first first.")] = False,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Let delayed jobs run now: those of these ids, or --all.

    Exit code 0: all of them. 1: some are not there, or in another state; the others are promoted.
    """
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import promote_order
        from eventq.cli.selection import check_selection

        check_selection(ids, every=every, limit=limit)
        place = Place(url=url, prefix=prefix, tag=tag)
        raise typer.Exit(
            carry_out(promote_order(ids or (), limit=limit), queue, place, Consent(dry_run=dry_run), as_json=as_json)
        )


def remove(
    queue: QueueName,
    ids: JobIds = None,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", metavar="ID", help="Not jobs: this schedule.", show_default=False)
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove jobs with all that is stored of them, or a schedule. Running jobs are left.

    Exit code 0: all of them. 1: declined, or some are running or not there; the others are removed.
    """
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import remove_order
        from eventq.cli.runtime import UsageError
        from eventq.cli.schedules import remove_schedule_order

        if bool(ids) == (schedule is not None):
            raise UsageError("give the ids of the jobs, or --schedule ID" + (", not both" if ids else ""))
        order = remove_order(ids or ()) if schedule is None else remove_schedule_order(schedule)
        place, consent = Place(url=url, prefix=prefix, tag=tag), Consent(yes=yes, dry_run=dry_run)
        raise typer.Exit(carry_out(order, queue, place, consent, as_json=as_json))


def pause(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    schedule: ScheduleId = None,
    as_json: Json = False,
) -> None:
    """Stop claiming on every worker, or stop a schedule. Running jobs finish, adding goes on."""
    with exit_codes():
        _set_paused(queue, schedule, url, prefix, tag, paused=True, as_json=as_json)


def resume(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    schedule: ScheduleId = None,
    as_json: Json = False,
) -> None:
    """Let workers claim again, or a schedule go on with its next slot."""
    with exit_codes():
        _set_paused(queue, schedule, url, prefix, tag, paused=False, as_json=as_json)


def _set_paused(
    queue: str, schedule: str | None, url: str | None, prefix: str, tag: str | None, *, paused: bool, as_json: bool
) -> None:
    from eventq.cli.opening import Place
    from eventq.cli.pausing import set_paused
    from eventq.cli.schedules import set_schedule_paused

    place = Place(url=url, prefix=prefix, tag=tag)
    if schedule is None:
        set_paused(queue, place, paused=paused, as_json=as_json)
    else:
        set_schedule_paused(queue, schedule, place, paused=paused, as_json=as_json)


def drain(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    delayed: Annotated[bool, typer.Option("--delayed", help="Delayed jobs, too.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove what is in line: waiting and prioritized jobs. Running and finished ones and schedules stay."""
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import drain_order

        place, consent = Place(url=url, prefix=prefix, tag=tag), Consent(yes=yes, dry_run=dry_run)
        raise typer.Exit(carry_out(drain_order(delayed=delayed), queue, place, consent, as_json=as_json))


def clean(
    queue: QueueName,
    *,
    grace: Annotated[str, typer.Option(help="Only jobs that are in the state for longer: seconds, or 15m, 2h, 7d.")],
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    state: Annotated[str, typer.Option(help="completed, failed, waiting, paused, prioritized, delayed or active.")] = "completed",
    limit: Limit = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove jobs of one state that are old enough: since they ended, came into line, or (delayed) were added.

    Of active jobs those whose lease ended so long ago and that nobody took back.
    """
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import clean_order
        from eventq.cli.selection import CLEANABLE, check_state
        from eventq.cli.spans import parse_seconds

        order = clean_order(parse_seconds("--grace", grace), check_state(state, CLEANABLE), limit=limit)
        place, consent = Place(url=url, prefix=prefix, tag=tag), Consent(yes=yes, dry_run=dry_run)
        raise typer.Exit(carry_out(order, queue, place, consent, as_json=as_json))


def obliterate(
    queue: QueueName,
    *,
    url: Url = None,
    prefix: Prefix = "eventq",
    tag: Tag = None,
    force: Annotated[
        bool, typer.Option("--force", help="Though jobs are running; their runs are told that they are lost.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Remove a queue with all it holds. Refused while jobs are running, unless forced."""
    with exit_codes():
        from eventq.cli.confirm import Consent
        from eventq.cli.manage import carry_out
        from eventq.cli.opening import Place
        from eventq.cli.orders import obliterate_order

        place, consent = Place(url=url, prefix=prefix, tag=tag), Consent(yes=yes, dry_run=dry_run)
        raise typer.Exit(carry_out(obliterate_order(queue, force=force), queue, place, consent, as_json=as_json))


def acl(
    roles: Annotated[
        list[str],
        typer.Argument(metavar="ROLE...", help="producer, fsync-producer, worker, observer or admin; several add up."),
    ],
    *,
    prefix: Prefix = "eventq",
) -> None:
    """Print the line of users.acl for a Redis user of a role. Reads and changes nothing; put a password in place of `secret`."""
    with exit_codes():
        from eventq.cli.runtime import UsageError
        from eventq.permissions import Role, acl_user

        unknown = [role for role in roles if role not in list(Role)]
        if unknown:
            raise UsageError(f"role {unknown[0]!r}: must be one of {', '.join(Role)}")
        wanted = [Role(role) for role in dict.fromkeys(roles)]
        print(acl_user(f"{prefix}-{'-'.join(wanted)}", "secret", wanted, prefix))
