"""Which servers can confirm which level, by what they say of themselves; what an answer comes to."""

from __future__ import annotations

from typing import Any

import pytest

from eventq import Durability
from eventq.commands.confirm import Confirmation
from eventq.errors import ConfigurationError, Unconfirmed
from eventq.operations.confirming import examine

ON = "appendonly yes and appendfsync always"


def examined(name: str, version: str, policy: str, aof: str = "1") -> None:
    """Answer what is asked as such a server would."""
    steps = examine(Durability.FSYNC, "there")
    info = {"redis_version": "7.2.4", "aof_enabled": aof} | {f"{name}_version": version, "server_name": name}
    answers: list[Any] = [info if name == "valkey" else {"redis_version": version, "aof_enabled": aof}]
    answers.append({"appendfsync": policy})
    next(steps)
    with pytest.raises(StopIteration):
        for answer in answers:
            steps.send(answer)


@pytest.mark.parametrize(
    ("name", "version", "policy"),
    [
        ("redis", "7.2.0", "always"),
        ("redis", "7.4.5", "always"),
        ("redis", "8.0.0", "everysec"),
        ("redis", "10.1.0", "everysec"),
        ("valkey", "7.2.5", "always"),
        ("valkey", "9.1.2", "always"),
    ],
)
def test_servers_that_confirm_what_is_on_disk(name: str, version: str, policy: str) -> None:
    """Where every write is on disk, or where WAITAOF waits until it is."""
    examined(name, version, policy)


@pytest.mark.parametrize(
    ("name", "version", "policy", "aof", "says"),
    [
        ("redis", "7.0.15", "always", "1", "is Redis 7.0.15, which cannot confirm"),
        ("redis", "7.4.5", "everysec", "1", "is redis 7.4.5 with appendfsync everysec, which confirms before"),
        ("valkey", "9.1.2", "everysec", "1", "is valkey 9.1.2 with appendfsync everysec, which confirms before"),
        ("redis", "8.2.0", "no", "1", "is redis 8.2.0 with appendfsync no, which never confirms"),
        ("redis", "8.2.0", "always", "0", "has no append-only file"),
    ],
)
def test_servers_that_do_not(name: str, version: str, policy: str, aof: str, says: str) -> None:
    """The error says which server, why, and what to do."""
    with pytest.raises(ConfigurationError, match=f"^durability 'fsync': there {says}.*: set {ON} there"):
        examined(name, version, policy, aof)


def test_nothing_is_asked_for_a_replica() -> None:
    """Whether there is one at the moment, its add will tell."""
    assert [] == list(examine(Durability.REPLICA, "there"))


@pytest.mark.parametrize(("level", "answer"), [(Durability.REPLICA, 1), (Durability.REPLICA, 2), (Durability.FSYNC, [1, 0])])
def test_enough_copies(level: Durability, answer: Any) -> None:
    """More than asked for is enough."""
    Confirmation(level, 10).check(answer, "q", ["1"])


@pytest.mark.parametrize(
    ("level", "answer"), [(Durability.REPLICA, 0), (Durability.FSYNC, [0, 5]), (Durability.FSYNC, ValueError("no"))]
)
def test_too_few(level: Durability, answer: Any) -> None:
    """Replicas' disks are no substitute for the server's own; a refusal is none."""
    with pytest.raises(Unconfirmed):
        Confirmation(level, 10).check(answer, "q", ["1"])
