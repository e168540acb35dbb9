"""Job data and results: any JSON, or one type, checked on the way in and on the way out.

msgspec checks dataclasses, TypedDicts, its own structs and everything built of them; a pydantic model (anything with
`model_validate_json`) checks itself.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from eventq.errors import ConfigurationError, InvalidJob

T = TypeVar("T")


class _Model(Protocol):
    def model_validate_json(self, text: str, /) -> Any: ...


_encode = msgspec.json.Encoder().encode
_UNENCODABLE = (TypeError, ValueError, RecursionError, OverflowError)


def encode_json(value: object, what: str) -> str:
    """Return compact JSON. Raises InvalidJob when the value has no JSON form."""
    try:
        return _encode(value).decode()
    except _UNENCODABLE as error:
        raise InvalidJob(f"{what}: {_short(value)} cannot be encoded as JSON: {error}") from error


def _short(value: object) -> str:
    return f"a {type(value).__name__}"


class Codec(Generic[T]):
    """Encodes and decodes values of one type. `encode` refuses what `decode` would not give back."""

    __slots__ = ("_checked", "_decode", "_model", "limit", "option", "type", "what")

    def __init__(self, type: Any, *, what: str, limit: int, option: str) -> None:
        self.type = type
        self.what = what
        self.limit = limit
        self.option = option
        self._model = cast("_Model", type) if hasattr(type, "model_validate_json") else None
        self._checked = type is not Any
        if self._model:
            self._decode = self._model.model_validate_json
            return
        try:
            self._decode = msgspec.json.Decoder(type).decode if self._checked else msgspec.json.Decoder().decode
        except TypeError as error:
            raise ConfigurationError(
                f"{what} type {type!r}: not a type that can be checked: {error}; use a dataclass, TypedDict, msgspec Struct, "
                "pydantic model or a built-in type"
            ) from error

    def encode(self, value: T) -> str:
        """Return the value as JSON. Raises InvalidJob: wrong type, no JSON form, or larger than the limit."""
        if self._model and hasattr(value, "model_dump_json"):
            text: str = cast("Any", value).model_dump_json()
        else:
            try:
                text = _encode(value).decode()
            except _UNENCODABLE as error:
                raise InvalidJob(f"{self.what}: {_short(value)} cannot be encoded as JSON: {error}") from error
        if len(text) * 4 > self.limit and (size := len(text.encode())) > self.limit:
            raise InvalidJob(f"{self.what} of {size} bytes: larger than the limit of {self.limit} bytes ({self.option})")
        if self._checked:
            self._check(value, text)
        return text

    def _check(self, value: T, text: str) -> None:
        if isinstance(self.type, type) and self._model and not isinstance(value, self.type):
            raise InvalidJob(f"{self.what}: expected {self.type.__name__}, got {_short(value)}")
        try:
            self._decode(text)
        except ValueError as error:
            expected = getattr(self.type, "__name__", str(self.type))
            raise InvalidJob(f"{self.what}: {_short(value)} is not a valid {expected}: {error}") from error

    def decode(self, text: str) -> T:
        """Return the value of stored JSON. Raises InvalidJob when it does not fit the type."""
        try:
            return cast("T", self._decode(text))
        except (ValueError, RecursionError) as error:
            expected = getattr(self.type, "__name__", str(self.type))
            raise InvalidJob(f"stored {self.what} is not a valid {expected}: {error}") from error
