"""What an error of the driver means is decided by class or code, never by wording."""

from __future__ import annotations

import pytest
from redis import exceptions as redis_errors

from eventq.client.faults import Remedy, refusal, remedy_of, unavailable
from eventq.errors import QueueUnavailable, ScriptError, ServerRefused


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (redis_errors.NoScriptError("NOSCRIPT No matching script"), Remedy.LOAD_SCRIPT),
        (redis_errors.BusyLoadingError("Redis is loading"), Remedy.WAIT),
        (redis_errors.TryAgainError("TRYAGAIN"), Remedy.WAIT),
        (redis_errors.AskError("7 127.0.0.1:7000"), Remedy.WAIT),
        (redis_errors.ResponseError("BUSY Redis is busy running a script"), Remedy.WAIT),
        (redis_errors.ResponseError("LOADING Redis is loading the dataset"), Remedy.WAIT),
        (redis_errors.ClusterDownError("The cluster is down"), Remedy.RECONNECT),
        (redis_errors.MasterDownError("Link with MASTER is down"), Remedy.RECONNECT),
        (redis_errors.ResponseError("MASTERDOWN Link with MASTER is down"), Remedy.RECONNECT),
        (redis_errors.MovedError("7 127.0.0.1:7000"), Remedy.FOLLOW),
        (redis_errors.ResponseError("MISCONF Redis is configured to save RDB snapshots"), Remedy.REFUSED),
        (redis_errors.ResponseError("NOREPLICAS Not enough good replicas to write."), Remedy.RECONNECT),
        (redis_errors.ReadOnlyError("READONLY You can't write"), Remedy.RECONNECT),
        (redis_errors.ResponseError("UNBLOCKED the instance changed its role"), Remedy.RECONNECT),
        (redis_errors.ConnectionError("Connection closed by server."), Remedy.RECONNECT),
        (redis_errors.TimeoutError("Timeout reading"), Remedy.RECONNECT),
        (ConnectionResetError(104, "reset"), Remedy.RECONNECT),
        (TimeoutError(), Remedy.RECONNECT),
        (redis_errors.AuthenticationError("WRONGPASS"), Remedy.RAISE),
        (redis_errors.NoPermissionError("NOPERM"), Remedy.FORBIDDEN),
        (redis_errors.ResponseError("ACL failure in script: User u has no permissions to run the 'hset' command"), Remedy.RAISE),
        (redis_errors.OutOfMemoryError("command not allowed"), Remedy.RAISE),
        (redis_errors.ResponseError("ERR the word LOADING is not at its beginning"), Remedy.RAISE),
        (redis_errors.ResponseError("WRONGTYPE Operation against a key"), Remedy.RAISE),
    ],
)
def test_a_fault_has_a_remedy(error: Exception, remedy: Remedy) -> None:
    """Wait for a busy server, replace a broken connection, tell the caller the rest."""
    assert remedy is remedy_of(error)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (redis_errors.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), "OOM", "out of memory"),
        (redis_errors.ResponseError("OOM command not allowed"), "OOM", "out of memory"),
        (redis_errors.NoPermissionError("this user has no permissions"), "NOPERM", "permission"),
        (redis_errors.ResponseError("ACL failure in script: User u has no permissions"), "NOPERM", "inside of the script"),
        (redis_errors.ResponseError("The user executing the script can't run this command"), "NOPERM", "inside of the script"),
        (redis_errors.AuthenticationError("WRONGPASS invalid username-password pair"), "NOAUTH", "credentials"),
        (redis_errors.ResponseError("MISCONF Redis is configured to save RDB snapshots"), "MISCONF", "cannot save"),
    ],
)
def test_a_refusal_says_who_refuses_what_and_why(error: Exception, code: str, words: str) -> None:
    """The operator reads which call it was and what the server objects to."""
    ours = refusal(error, "script add_jobs")
    assert isinstance(ours, ServerRefused)
    assert code == ours.code
    assert str(ours).startswith("script add_jobs: ") and words in str(ours)


def test_what_nobody_expects_is_a_bug_of_ours() -> None:
    """Any other reply is a ScriptError with the whole text."""
    ours = refusal(redis_errors.ResponseError("ERR Number of keys can't be negative"), "script add_jobs")
    assert isinstance(ours, ScriptError)
    assert "Number of keys" in str(ours)


def test_a_key_of_another_type_is_no_bug_of_ours() -> None:
    """Somebody else wrote it; the doctor knows which it is."""
    ours = refusal(redis_errors.ResponseError("WRONGTYPE Operation against a key"), "script add_jobs")
    assert isinstance(ours, ServerRefused)
    assert ours.code == "WRONGTYPE"
    assert "eventq doctor" in str(ours)


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    """Where, how long, what the driver said, and what the caller may do."""
    ours = unavailable("script add_jobs", "redis://h:6379/0", 10.04, ConnectionError("refused"))
    assert isinstance(ours, QueueUnavailable)
    for words in ("script add_jobs", "redis://h:6379/0", "10.0 seconds", "refused", "job_id"):
        assert words in str(ours)
    assert "seconds: TimeoutError; " in str(unavailable("script add_jobs", "redis://h:6379/0", 10.0, TimeoutError()))
