"""The tree of errors: who must act is the class, what it is about is in attributes."""

from __future__ import annotations

import inspect
import pickle

import pytest

from eventq import errors
from eventq.errors import (
    BulkAddError,
    ConfigurationError,
    EventqError,
    InvalidJob,
    InvalidState,
    JobError,
    JobFailed,
    JobNotFound,
    LeaseLost,
    Postpone,
    Retry,
    ServerRefused,
    Unconfirmed,
    Unrecoverable,
)

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


def test_everything_we_raise_has_one_root() -> None:
    """`except EventqError` catches all of ours; what processors raise as control flow is not among it."""
    control = {Unrecoverable, Retry, Postpone}
    assert control == {cls for cls in CLASSES if not issubclass(cls, EventqError)}


def test_every_error_says_who_must_act() -> None:
    """Every class has a docstring of its own."""
    assert [] == [cls.__name__ for cls in CLASSES if not cls.__dict__.get("__doc__")]


def test_the_tree_in_the_docstring_names_every_error() -> None:
    """The picture at the top of errors.py is complete."""
    assert [] == [cls.__name__ for cls in CLASSES if issubclass(cls, EventqError) and cls.__name__ not in (errors.__doc__ or "")]


def test_refusals_of_input_are_value_errors_too() -> None:
    """Code that knows nothing of eventq may catch ValueError for bad input."""
    assert issubclass(ConfigurationError, ValueError)
    assert issubclass(InvalidJob, ValueError)


@pytest.mark.parametrize("cls", [JobNotFound, InvalidState, LeaseLost])
def test_job_errors_name_queue_and_job(cls: type[JobError]) -> None:
    """Identity is in attributes, not only in the text."""
    error = cls("gone", queue="mail", job_id="7")
    assert ("gone", "mail", "7") == (str(error), error.queue, error.job_id)


def test_errors_carry_what_a_caller_decides_by() -> None:
    """The job's error type, the server's code, the jobs that are in."""
    failed = JobFailed("x", queue="q", job_id="1", type="ValueError", reason="bad", traceback="tb")
    assert ("ValueError", "bad", "tb") == (failed.type, failed.reason, failed.traceback)
    assert "OOM" == ServerRefused("full", "OOM").code
    assert ([1, 2], [1, 2]) == ((half := BulkAddError("half", [1, 2])).added, half.confirmed)
    assert [1] == BulkAddError("half", [1, 2], [1]).confirmed


def test_unconfirmed_is_about_one_job_or_many() -> None:
    """Each caller of a shared call is told of its own job, with the same cause."""
    many = Unconfirmed("so", queue="mail", job_ids=["1", "2"], durability="replica", copies=0, wanted=1)
    many.__cause__ = ValueError()
    one = many.about("2")
    assert "2 jobs of queue 'mail' are stored and will probably run, but so; " in str(many)
    assert "job '2' of queue 'mail' is stored and will probably run, but so; " in str(one)
    assert (["2"], "replica", 0, 1) == (one.job_ids, one.durability, one.copies, one.wanted)
    assert one.__cause__ is many.__cause__


def test_retry_has_a_message_even_without_one() -> None:
    """What is stored of a Retry says what happened."""
    assert "the processor asked for a retry" == str(Retry(delay=1))
    assert ("later", 2.5) == (str(Retry("later", delay=2.5)), Retry(delay=2.5).delay)


def test_control_flow_survives_a_process_boundary() -> None:
    """A processor that works in a process pool may raise Retry and Unrecoverable there."""
    back = pickle.loads(pickle.dumps(Retry("later", delay=2.5)))
    assert ("later", 2.5) == (str(back), back.delay)
    assert "no" == str(pickle.loads(pickle.dumps(Unrecoverable("no"))))
