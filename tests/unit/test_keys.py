"""The names in Redis: one hash tag per queue, every column declared, nothing that needs escaping."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventq.errors import ConfigurationError, InvalidJob
from eventq.keys import COLUMNS, QueueKeys, check_job_id, check_job_name, check_own_id, check_queue_name

NAME = string.ascii_letters + string.digits + "._-"
BAD_NAMES: list[Any] = ["", "a b", "a:b", "a/b", "{a}", "a\n", "\n", "ä", "a" * 129, None, 5, b"a", 'a"b', "a\\b", "a\tb"]


def test_a_key_is_prefix_tag_queue_column() -> None:
    """`eventq:{tag}:queue:column`; the tag is the queue's name unless it is set."""
    assert "eventq:{mail}:mail:jobs" == QueueKeys("mail")["jobs"]
    assert "app:{slot}:mail:wait" == QueueKeys("mail", prefix="app", tag="slot")["wait"]
    assert "app:queues" == QueueKeys("mail", prefix="app").queues


def test_every_column_of_the_design_has_a_key() -> None:
    """The columns are fixed, each of them once."""
    keys = QueueKeys("q")
    assert len(set(COLUMNS)) == len(COLUMNS) == len({keys[column] for column in COLUMNS})


def test_keys_show_where_they_point() -> None:
    """The repr names the queue."""
    assert "QueueKeys('eventq:{q}:q')" == repr(QueueKeys("q"))


@given(st.text(NAME, min_size=1, max_size=128))
def test_every_plain_name_is_taken(name: str) -> None:
    """Letters, digits, dot, underscore and dash, up to 128 of them, name queues, ids and jobs."""
    assert name == check_queue_name(name) == check_own_id(name) == check_job_id(name) == check_job_name(name)


@given(st.text(NAME + ":/ ", min_size=1, max_size=128))
def test_job_names_may_hold_colon_slash_and_space(name: str) -> None:
    """Job names are labels that people read."""
    assert name == check_job_name(name) == check_job_name(name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_queue_name_is_a_configuration_error(name: Any) -> None:
    """A queue's name is refused with the value and what is allowed."""
    with pytest.raises(ConfigurationError, match=r"queue name .*: must be 1 to 128 of A-Z a-z 0-9 \. _ -"):
        QueueKeys(name)
    if name is not None:
        with pytest.raises(ConfigurationError, match="queue name"):
            QueueKeys("fine", tag=name)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_own_id_is_an_invalid_job(name: Any) -> None:
    """An own id is refused with the value and what is allowed."""
    with pytest.raises(InvalidJob, match=r"job_id .*: must be 1 to 128 of A-Z a-z 0-9 \. _ -"):
        check_own_id(name)


@pytest.mark.parametrize("name", [*[name for name in BAD_NAMES if name not in ("a:b", "a" * 129)], "a" * 257])
def test_a_bad_id_to_look_for_is_an_invalid_job(name: Any) -> None:
    """Ids that schedules made have colons and may be longer; what no job can have is refused."""
    assert check_job_id(f"schedule:{'a' * 128}:1795308637808")
    with pytest.raises(InvalidJob, match=r"job_id .*: must be 1 to 256 of A-Z a-z 0-9 \. _ - :"):
        check_job_id(name)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name not in ("a b", "a:b", "a/b")])
def test_a_bad_job_name_is_an_invalid_job(name: Any) -> None:
    """A job's name is refused with the value and what is allowed, also when it is asked for again."""
    for _ in range(2):
        with pytest.raises(InvalidJob, match="job name .*: must be 1 to 128 of A-Z a-z 0-9 . _ - : / and space"):
            check_job_name(name)


@pytest.mark.parametrize("prefix", ["", "a:b", "{a}", "a" * 65, 3, "a\n"])
def test_a_bad_prefix_is_a_configuration_error(prefix: Any) -> None:
    """A prefix has an alphabet and a length too."""
    with pytest.raises(ConfigurationError, match=r"prefix .*: must be 1 to 64 of A-Z a-z 0-9 \. _ -"):
        QueueKeys("q", prefix=prefix)


def test_a_long_bad_name_is_cut_in_the_message() -> None:
    """A megabyte handed in as a name does not become a megabyte of message."""
    with pytest.raises(ConfigurationError) as caught:
        check_queue_name("x" * 1_000_000)
    assert len(str(caught.value)) < 200
