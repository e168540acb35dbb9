"""Logging for `eventq worker`: one line per record on stderr, for people (text) or machines (JSON)."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from eventq.cli.text import plain
from eventq.job_logs import OUTSIDE, JobLogFilter

__all__ = ["LogFormat", "LogLevel", "set_up_logging"]


class LogLevel(StrEnum):
    """From what level on records are shown."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"
    critical = "critical"


class LogFormat(StrEnum):
    """How a record is written."""

    text = "text"
    json = "json"


_OUTSIDE: Final = tuple(OUTSIDE.items())
_OURS: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", None, None))) | {"message", "asctime", "taskName"}


def set_up_logging(level: LogLevel, form: LogFormat) -> None:
    """Send every record of this level and above to stderr, in place of what the root logger did so far."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form is LogFormat.json else TextFormatter())
    handler.addFilter(JobLogFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class TextFormatter(logging.Formatter):
    """`2025-01-31T12:00:00.000Z INFO eventq.worker message`; a message is one line, whatever it holds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback follows on lines of its own."""
        line = f"{_time(record)} {record.levelname} {plain(record.name)} {plain(record.getMessage())}"
        # Set in: what an exception says must not pass for a record of its own.
        return "\n".join([line, *(f"  {plain(each)}" for each in _traceback(self, record).splitlines())])


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, the record's extras, traceback when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line of ASCII."""
        extras = {key: value for key, value in vars(record).items() if key not in _OURS and (key, value) not in _OUTSIDE}
        facts: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extras,
        }
        if traceback := _traceback(self, record):
            facts["traceback"] = traceback
        return json.dumps(facts, default=str)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)
