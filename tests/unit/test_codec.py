"""Data and results: any JSON or one type, checked on the way in and on the way out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from eventq.codec import Codec, encode_json
from eventq.errors import ConfigurationError, InvalidJob

LIMIT = 256 * 1024


@dataclass
class Email:
    """A dataclass."""

    to: str
    subject: str = ""


class Point(TypedDict):
    """A TypedDict."""

    x: int
    y: int


class Order(msgspec.Struct):
    """A msgspec struct."""

    number: int
    at: datetime


class User(pydantic.BaseModel):
    """A pydantic model."""

    name: str
    age: int = pydantic.Field(ge=0)


class Colour(Enum):
    """An enum."""

    RED = "red"


def codec(type: Any = Any, limit: int = LIMIT) -> Codec[Any]:
    """Return a codec of job data."""
    return Codec[Any](type, what="job data", limit=limit, option="Limits.data")


@pytest.mark.parametrize(
    ("type", "value", "text"),
    [
        (Any, {"a": [1, 2.5, None, True, "ü"]}, '{"a":[1,2.5,null,true,"ü"]}'),
        (Any, None, "null"),
        (Email, Email("a@b.c", "Hi"), '{"to":"a@b.c","subject":"Hi"}'),
        (Point, {"x": 1, "y": 2}, '{"x":1,"y":2}'),
        (Order, Order(7, datetime(2030, 1, 1, tzinfo=UTC)), '{"number":7,"at":"2030-01-01T00:00:00Z"}'),
        (User, User(name="Ann", age=3), '{"name":"Ann","age":3}'),
        (list[int], [1, 2], "[1,2]"),
        (int | None, None, "null"),
        (Colour, Colour.RED, '"red"'),
        (str, "x", '"x"'),
    ],
)
def test_a_value_of_the_type_goes_in_and_comes_out(type: Any, value: Any, text: str) -> None:
    """What is encoded decodes to an equal value of the same type."""
    one = codec(type)
    assert text == one.encode(value)
    assert value == one.decode(text)


@pytest.mark.parametrize(
    ("type", "value"),
    [
        (Email, {"to": 5}),
        (Email, {"subject": "no to"}),
        (Email, None),
        (Point, {"x": 1}),
        (Order, {"number": "seven", "at": "2030-01-01T00:00:00Z"}),
        (User, {"name": "Ann"}),
        (User, Email("a@b.c")),
        (int, "1"),
        (int, 1.5),
        (float, float("nan")),
        (list[int], [1, "2"]),
    ],
)
def test_a_value_of_another_type_is_refused_before_it_is_stored(type: Any, value: Any) -> None:
    """Encode refuses what decode would not give back, and says what was expected."""
    with pytest.raises(InvalidJob, match=r"^job data: (a \w+ is not a valid|expected)") as caught:
        codec(type).encode(value)
    assert getattr(type, "__name__", str(type)) in str(caught.value)


def circle() -> list[Any]:
    """Return a list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize("value", [object(), lambda: 0, {"a": {object()}}, circle(), {(1, 2): 3}, "\ud800"])
@pytest.mark.parametrize("type", [Any, dict])
def test_what_has_no_json_form_is_refused(type: Any, value: Any) -> None:
    """Objects, cycles and what JSON cannot say are InvalidJob with the type of the value."""
    with pytest.raises(InvalidJob, match=r"^job data: a \w+ (cannot be encoded as JSON|is not a valid dict)"):
        codec(type).encode(value)


def test_the_limit_is_in_bytes_and_named() -> None:
    """A value larger than the limit is refused with its size, the limit and the option that changes it."""
    one = codec(limit=100)
    assert 100 == len(one.encode("x" * 98))
    assert 100 == len(one.encode("ü" * 49).encode())
    for value, size in (("x" * 99, 101), ("ü" * 50, 102)):
        with pytest.raises(InvalidJob, match=rf"^job data of {size} bytes: larger than the limit of 100 bytes \(Limits.data\)"):
            one.encode(value)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"to":5}', "[1]", "\ufffd"])
def test_stored_text_that_does_not_fit_is_refused(text: str) -> None:
    """Damaged or foreign text is InvalidJob, whatever is wrong with it."""
    with pytest.raises(InvalidJob, match="stored job data is not a valid Email"):
        codec(Email).decode(text)
    with pytest.raises(InvalidJob, match="stored job data is not a valid User"):
        codec(User).decode(text)


def test_deep_nesting_is_a_refusal_not_a_crash() -> None:
    """Text nested deeper than the decoder goes is InvalidJob."""
    with pytest.raises(InvalidJob, match="stored job data is not a valid"):
        codec().decode("[" * 100_000)


def test_a_type_that_cannot_be_checked_is_a_configuration_error() -> None:
    """The type is looked at when the queue is named, not at the first job."""

    class Plain:
        def __init__(self, anything: object) -> None:
            self.anything = anything

    codec(Plain)
    with pytest.raises(ConfigurationError, match="job data type .*: not a type that can be checked"):
        codec(int | list[int] | list[str])


def test_our_own_json_says_what_could_not_be_encoded() -> None:
    """encode_json names what it was about."""
    assert '{"a":1}' == encode_json({"a": 1}, "progress")
    with pytest.raises(InvalidJob, match="progress: a object cannot be encoded as JSON"):
        encode_json(object(), "progress")
