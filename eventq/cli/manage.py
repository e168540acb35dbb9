"""The commands that change a queue: what they would do, whether they may, what they did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from eventq.cli.confirm import Consent, ask, need_consent
from eventq.cli.opening import Place, open_queue
from eventq.cli.progress import progress
from eventq.cli.runtime import FATAL, OK, run_async, say
from eventq.cli.tables import print_json
from eventq.cli.text import counted, plain
from eventq.limits import CALL_JOBS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from eventq.queue import Queue

    OnProgress = Callable[[int], None]

__all__ = ["Done", "Order", "Plan", "carry_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a command would do: `would <does>`, to so many jobs. refused: why it would not, '' when it would."""

    does: str
    count: int
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command did: `<did>`, to so many jobs. facts: more, for JSON.

    hint: what people should know of it. failed: what it could not do, each a sentence.
    """

    did: str
    count: int
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hint: str = ""
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A command. destroys: it asks first. word: what has to be typed then, instead of yes."""

    command: str
    plan: Callable[[Queue[Any, Any]], Awaitable[Plan]]
    act: Callable[[Queue[Any, Any], OnProgress], Awaitable[Done]]
    #: How many jobs at most, for the bar.
    total: Callable[[Queue[Any, Any]], Awaitable[int]]
    destroys: bool = False
    word: str = ""


def carry_out(order: Order, queue_name: str, place: Place, consent: Consent, *, as_json: bool) -> int:
    """Do what is ordered, or say what would be done; return the exit code: 1 where it was declined, refused or done in part."""
    must_ask = order.destroys and not consent.yes and not consent.dry_run
    if must_ask:
        need_consent(order.command)
    # Asked between two loops: Ctrl-C at a question must end it at once.
    plan = run_async(lambda: _plan(order, queue_name, place)) if must_ask or consent.dry_run else None
    head: dict[str, Any] = {"queue": queue_name, "action": order.command, "dry_run": consent.dry_run}
    if plan and (consent.dry_run or plan.refused):
        if as_json:
            print_json({**head, "count": plan.count, "refused": plan.refused or None})
        elif not plan.refused:
            print(plain(f"would {plan.does}; nothing was changed"))
        if plan.refused:
            say(f"{plan.refused}; nothing was changed")
        return FATAL if plan.refused else OK
    if plan and not ask(f"{plan.does[:1].upper()}{plan.does[1:]}?", word=order.word):
        say("declined; nothing was changed")
        return FATAL
    done = run_async(lambda: _act(order, queue_name, place))
    if as_json:
        print_json({**head, "count": done.count, **done.facts})
    else:
        print(plain(done.did))
        if done.hint and done.count:
            say(done.hint)
    for each in done.failed:
        say(each)
    return FATAL if done.failed else OK


async def _plan(order: Order, queue_name: str, place: Place) -> Plan:
    async with open_queue(queue_name, place) as queue:
        return await order.plan(queue)


async def _act(order: Order, queue_name: str, place: Place) -> Done:
    handled = _Handled()
    async with open_queue(queue_name, place) as queue:
        try:
            with progress(order.command, await order.total(queue), per_call=CALL_JOBS) as show:
                return await order.act(queue, handled.telling(show))
        except BaseException:
            if handled.count:
                done = f"after {counted(handled.count, 'job')} or a few more"
                say(f"{order.command} was stopped {done}: these are done, say it again for the rest")
            raise


class _Handled:
    """How far an operation has come, for whoever must be told when it does not come to its end."""

    def __init__(self) -> None:
        self.count = 0

    def telling(self, show: OnProgress) -> OnProgress:
        def tell(count: int) -> None:
            self.count = count
            show(count)

        return tell
