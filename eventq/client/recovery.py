"""What a runner does about one fault after another while it repeats a command. No I/O: both runners ask here."""

from __future__ import annotations

from random import random
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from eventq.client.faults import Remedy, is_broken, not_a_cluster_url, refusal, remedy_of, unavailable
from eventq.errors import ServerRefused

if TYPE_CHECKING:
    from redis.exceptions import MovedError

    from eventq.client.server import Server
    from eventq.errors import EventqError

_FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 0.5
#: Scripts that are flushed again and again are loaded so often without a pause.
_LOADS: Final = 3
#: What a server refuses for a while.
_PASSING: Final = ("OOM", "MISCONF")
#: Seconds until it is told again that a permission is missing, which it may be for good.
_TELL_EVERY: Final = 30.0


class Recovery:
    """One command that did not succeed at once.

    what: how errors call it. tried: the node whose connection is in use. patience: seconds until QueueUnavailable, None for no
    end. longest_pause: seconds between two tries. began: when the call was made (monotonic), if not now. has_worked: whether
    this runner ever got an answer, and somebody hears what it waits for: who was let in once may be again.
    """

    def __init__(
        self,
        server: Server,
        what: str,
        *,
        is_script: bool,
        patience: float | None,
        longest_pause: float,
        tried: str,
        began: float | None = None,
        has_worked: bool = False,
    ) -> None:
        self._server = server
        self._what = what
        self._is_script = is_script
        self._patience = patience
        self._longest_pause = longest_pause
        self._began = monotonic() if began is None else began
        self._pause = min(_FIRST_PAUSE, longest_pause)
        self._has_worked = has_worked
        self._has_followed = False
        self._loads = 0
        self._tell_at = 0.0
        #: Whether the command was on its way when the next fault comes.
        self.is_sent = False
        #: Whether an earlier try may have been executed.
        self._is_unknown = False
        #: Whether the script must be loaded before the next try.
        self.load = False
        #: Whether the connection must be replaced, and by one to which node of a Cluster (None: the server decides).
        self.drop = False
        self.node: str | None = None
        #: The node that was connected to last.
        self.tried = tried

    def after(self, fault: Exception, *, is_closed: bool = False) -> float:
        """Take a fault; return how many seconds to wait before the next try, 0 where nothing is wrong with the server.

        Raises our error for what no repeating mends, and QueueUnavailable when patience is at an end.
        """
        remedy = remedy_of(fault)
        self._is_unknown = self._is_unknown or (self.is_sent and is_broken(fault))
        self.drop, self.node = remedy in (Remedy.RECONNECT, Remedy.FOLLOW), None
        if remedy is Remedy.LOAD_SCRIPT and self._is_script:
            self.load = True
            self._loads += 1
            if self._loads <= _LOADS:
                return 0.0
        if remedy is Remedy.FOLLOW:
            if self._server.address.kind != "cluster":
                raise not_a_cluster_url(self._server.where) from fault
            self.node = self._server.follow(cast("MovedError", fault), self.tried)
            if not self._has_followed:
                self._has_followed = True
                return 0.0
        elif not self._may_wait(remedy):
            raise self._refusal(fault) from fault
        waited, pause = monotonic() - self._began, self._pause
        if is_closed or (self._patience is not None and waited + pause > self._patience):
            raise unavailable(self._what, self._server.asked, waited, fault) from fault
        self._pause = min(pause * 2, self._longest_pause)
        if remedy is Remedy.RECONNECT:
            self._server.node_failed(self.tried)
        # Not all of them at the same moment.
        return pause * (1 + random()) / 2

    def is_news(self, fault: Exception) -> bool:
        """Whether somebody is to be told of a fault that is waited for."""
        if remedy_of(fault) is not Remedy.FORBIDDEN:
            return True
        now = monotonic()
        if now < self._tell_at:
            return False
        self._tell_at = now + _TELL_EVERY
        return True

    def _refusal(self, fault: Exception) -> EventqError:
        refused = refusal(fault, self._what)
        # Who has all the time in the world tries again, whatever it was.
        is_told = self._is_script and self._patience is not None
        if self._is_unknown and is_told and isinstance(refused, ServerRefused) and refused.code in _PASSING:
            # It refuses the repetition; of the first try nobody knows. (Who is shut out has to know that above all.)
            return unavailable(self._what, self._server.asked, monotonic() - self._began, fault)
        return refused

    def _may_wait(self, remedy: Remedy) -> bool:
        if remedy is Remedy.LOAD_SCRIPT:
            return self._is_script
        if remedy is Remedy.FORBIDDEN and not self._has_worked:
            return False
        is_refused = remedy in (Remedy.REFUSED, Remedy.FORBIDDEN)
        return remedy is not Remedy.RAISE and not (is_refused and self._patience is not None)
