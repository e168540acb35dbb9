"""Writes docs/reference/ from the code: the event catalogue, options, errors, the API, the command line.

`python tools/make_reference.py` writes the pages, `--check` says which differ and exits 1 if any does. A field, an argument or an
environment variable that nothing describes is an error: its docstring has to, or the table of what docstrings leave out below.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import typer.main

import eventq
from eventq import events as catalogue
from eventq.cli.app import app
from eventq.options import KEEP_COMPLETED, KEEP_FAILED, Spec
from eventq_prometheus.catalogue import CATALOGUE as METRICS
from eventq_prometheus.catalogue import Source

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "docs" / "reference"
_NOTE: Final = "<!-- Made by tools/make_reference.py from the code: change the code, then run `make reference`. -->"

#: What docstrings leave out because it is the same everywhere.
ARGUMENTS: Final = {
    "name": "the queue's name",
    "schedule_id": "an id of your own",
    "timezone": "an IANA name, for `cron`",
    "start": "nothing runs before it",
    "data": "of the jobs",
    "name of Worker": "the worker's name, made of host and process unless said",
    "data_type": "what the jobs' data are; checked when added and before a processor sees them. Without one any JSON",
    "result_type": "what processors return; checked when it is stored and when it is read. Without one any JSON",
    "queue": "a Queue, or the name of one with `url`",
    "url": "where Redis or Valkey is; see [addresses](#addresses)",
    "prefix": "the first part of every key in Redis",
    "lease": "seconds after which a silent worker's jobs are given to others; that of the workers",
    "limits": "size limits; see [Limits](#limits)",
    "max_stalls": "how often a job may lose its worker before it fails; that of the workers",
    "on_fault": "told each error that is waited out",
    "on_work": "told by each sweep that jobs are in line",
    "failed": "told what it ended with",
}

#: What signatures leave open.
TYPES: Final = {"data_type": "type", "result_type": "type", "processor": "Callable or Mapping[str, Callable]"}

#: What holds when neither job nor queue says anything.
JOB_DEFAULTS: Final = {
    "attempts": str(Spec().attempts),
    "backoff": "none: at once",
    "delay": "0",
    "at": "",
    "priority": "0",
    "lifo": "`False`",
    "job_id": "one is made",
    "remove_on_complete": f"`{KEEP_COMPLETED!r}`",
    "remove_on_fail": f"`{KEEP_FAILED!r}`",
    "timeout": "none",
    "max_starts": "none",
    "propagation": "auto",
}

#: What the facts of events mean; units are in their names.
FIELDS: Final = {
    "added_ms": "of a job that was delayed or ran before: when it was added. `added` says it always, as a datetime",
    "attempt": "which attempt, from 1",
    "concurrency": "how many jobs it runs at once",
    "count": "how many",
    "due_ms": "when the job may run, in ms since the epoch; 0 for at once. `due` is the same as a datetime, or None",
    "error": "`type` and `message` of what was raised",
    "error of error": "the exception itself, in the process that had it; None elsewhere",
    "exhausted": "whether the attempts are used up",
    "first_ms": "the first of them, in ms since the epoch",
    "job_id": "the job's id",
    "job_ids": "the jobs' ids",
    "last_ms": "the last of them, in ms since the epoch",
    "message": "what it said",
    "name": "the job's name",
    "policy": "what is done about them: once, skip or a number",
    "previous": "the state before",
    "priority": "the job's priority, 0 for none",
    "processors": "the full names of its functions by job name, the empty name for all",
    "progress": "a number or a JSON object",
    "ran_ms": "from started to now, in ms. `ran` is the same in seconds",
    "reason of failed": "error, stalled or timeout",
    "reason of lost": "trimmed or rollback",
    "reason of removed": "removed, retention, cleaned, drained or repaired",
    "resource": "what OpenTelemetry is told of its process, such as `service.name`",
    "result": "what the processor returned, if it is small",
    "result_omitted": "whether there is a result that was too large to ride along",
    "schedule": "the schedule that made the job, empty for none",
    "schedule_id": "the schedule's id",
    "service": "the `service.name` of whoever added the job; empty for none",
    "slot_ms": "the time of the schedule's slot, in ms since the epoch; 0 for none",
    "stalls": "how often the job has lost its worker",
    "state": "the state after",
    "total_ms": "from first ready to the end, in ms, of a job that ran more than once; else 0. `total` says it in seconds always",
    "totals": "the queue's totals as they were at its end: what is counted and the job's name, and the number",
    "traceparent": "W3C trace context of whoever added the job; empty for none",
    "tracestate": "the rest of it",
    "type": "the type of the error",
    "undone": "events read before that the server has no longer",
    "waited_ms": "from ready to started, in ms. `waited` is the same in seconds",
    "what": "what was changed: data or priority",
    "worker": "the worker's name",
}

#: Everything that is read from the environment.
ENVIRONMENT: Final = {
    "EVENTQ_URL": "where Redis or Valkey is, for whatever is not told by `url=` or `--url`",
    "EVENTQ_SIGNING_KEYS_FILE": "a file of [signing keys](../signing.md), for queues that are given none",
    "EVENTQ_ALLOW_EVICTION": "`1`: start although `maxmemory-policy` is one of `allkeys-*`, which may evict a whole queue",
    "EVENTQ_ALLOW_INSECURE_TLS": "`1`: take options of an address that switch off what TLS proves, such as `ssl_cert_reqs=none`",
}
#: Told by one of our processes to another.
INTERNAL: Final = {"EVENTQ_DEV_LIFELINE"}

_ADDRESSES: Final = """\
`url=`, else the environment variable `EVENTQ_URL`, else `redis://localhost:6379/0`. Percent-encode what user and password hold
of `/ # ? @ : [ ]`.

| address | what |
| --- | --- |
| `redis://user:password@host:port/DB` | one server |
| `rediss://...` | the same over TLS |
| `unix:///path/to/socket` | one server by its socket |
| `sentinel://host:port,host:port/SERVICE/DB` | the primary that Sentinels know as SERVICE; `sentinel+tls://` for TLS |
| `cluster://host:port,host:port` | a Cluster, by some of its nodes; `cluster+tls://` for TLS |
| `embedded://` | a Valkey of this process, gone with it (extra `embedded`) |
| `embedded:///path` | a Valkey that keeps its data in that folder, shared by all processes that name it |
"""


_RETENTION: Final = """\
The queue object that adds fills in its `default_options`, and the result is stored with the job. A job that was added without any
`remove_on_complete` or `remove_on_fail` follows those of the worker's queue object, or else the defaults above.

A number, or a count of `Keep`, is one of all jobs of the queue that ended so, whatever their names: when a job with
`remove_on_complete=2` completes, the oldest completed jobs beyond two are removed. An age alone, and `False`, keep a job out of
reach of every rule but its own.
"""

#: What objects hold besides what their classes describe.
ATTRIBUTES: Final = {
    eventq.Job: {
        "id": "The job's id: text of 20 characters that sorts by time, or one of your own.",
        "cancelled": "Whether this run is over: its worker stops, its lease is lost, its timeout is up. A plain function that "
        "sees it should return or raise soon; its outcome is no longer recorded. An `async` function is cancelled instead.",
        "fence": "A number that rises with every run of any job of the queue, to store with what you write; "
        "0 outside a processor.",
    },
    eventq.SyncJob: {"id": "The job's id: text of 20 characters that sorts by time, or one of your own."},
}


class Undescribed(Exception):
    """Something that users can say or see, and that nothing describes."""


def main() -> int:
    """Write the pages, or compare them with `--check`."""
    differing = [name for name, text in pages().items() if not _is_same(FOLDER / name, text)]
    if "--check" in sys.argv:
        print(
            "\n".join(f"docs/reference/{name} is not what the code says" for name in differing) or "docs/reference: as the code"
        )
        return 1 if differing else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in differing:
        (FOLDER / name).write_text(pages()[name])
        print(f"docs/reference/{name} written")
    return 0


def _is_same(page: Path, text: str) -> bool:
    return page.exists() and page.read_text() == text


def pages() -> dict[str, str]:
    """Return every page by its name."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "api.md": _api_page,
        "cli.md": _cli_page,
        "events.md": _events_page,
        "metrics.md": _metrics_page,
        "options.md": _options_page,
    }
    return {name: re.sub(r"\n{3,}", "\n\n", "\n".join(maker())).strip() + "\n" for name, maker in makers.items()}


# Events


def _events_page() -> Iterator[str]:
    yield f"# Event catalogue\n\n{_NOTE}\n"
    yield (
        "Every event says `kind`, `queue`, `seq` (its number in the queue) and `ms` (Redis' clock, since the epoch; `time` is\n"
        "the same as an aware datetime). Classes are in `eventq.events`. How to hear them: [Listening to events](../events.md).\n"
    )
    yield "| kind | when |\n| --- | --- |"
    kinds = {**catalogue.STREAM_EVENTS, **catalogue.LOCAL_EVENTS}
    yield from (f"| [{kind}](#{kind}) | {_cell(_summary(cls))} |" for kind, cls in kinds.items())
    said = _facts_of_kinds()
    for kind, cls in kinds.items():
        yield f"\n## {kind}\n\n`{cls.__name__}`. {_doc(cls)}\n"
        rows = [_field_row(kind, field) for field in msgspec.structs.fields(cls) if field.name in said[kind]]
        if rows:
            yield "| field | type | meaning |\n| --- | --- | --- |\n" + "\n".join(rows)


def _facts_of_kinds() -> dict[str, set[str]]:
    """Return which fields each kind fills, as the catalogue's table says: classes share fields that not every kind fills."""
    found: dict[str, set[str]] = {}
    for row in re.findall(r"^\| (.*) ?\|$", catalogue.__doc__ or "", re.MULTILINE)[2:]:
        kinds, _, facts = (cell.strip() for cell in row.split("|"))
        words = re.split(r", | or ", facts.replace("trace context", "traceparent, tracestate, service")) if facts else []
        for kind in kinds.split(", "):
            cls = catalogue.STREAM_EVENTS.get(kind) or catalogue.LOCAL_EVENTS[kind]
            fields = {field.name for field in msgspec.structs.fields(cls)}
            found[kind] = {word if word in fields else f"{word}_ms" for word in words}
            if unknown := found[kind] - fields:
                raise Undescribed(f"event {kind}: the catalogue names {', '.join(sorted(unknown))}, which {cls.__name__} has not")
    return found


def _field_row(kind: str, field: msgspec.structs.FieldInfo) -> str:
    meaning = FIELDS.get(f"{field.name} of {kind}") or FIELDS.get(field.name)
    if meaning is None:
        raise Undescribed(f"event {kind}, field {field.name}")
    return f"| `{field.name}` | {_type(field.type)} | {_cell(meaning)} |"


# Metrics


def _metrics_page() -> Iterator[str]:
    yield f"# Metrics\n\n{_NOTE}\n"
    yield (
        "What `eventq exporter` shows. How to run it, and what the numbers promise: [Metrics for Prometheus](../metrics.md).\n"
    )
    yield "| metric | type | unit | labels | meaning |\n| --- | --- | --- | --- | --- |"
    for metric in METRICS.values():
        labels = [*metric.labels, *(["(job_name)"] if metric.per_name else [])]
        shown = ", ".join(f"`{label}`" if label[0] != "(" else f"(`{label[1:-1]}`)" for label in labels)
        yield f"| `{metric.name}` | {metric.kind} | {metric.unit} | {shown} | {_cell(metric.help)} |"
    yield "\nA label in parentheses comes with `--histograms-by-name`.\n\n## Where the values come from\n"
    for source in Source:
        names = ", ".join(f"`{metric.name}`" for metric in METRICS.values() if metric.source is source)
        yield f"- {source[0].upper()}{source[1:]}: {names}"
    yield "\n## Buckets\n\n| histogram | upper bounds |\n| --- | --- |"
    for metric in METRICS.values():
        if metric.buckets:
            yield f"| `{metric.name}` | {' '.join(f'{bound:g}' for bound in metric.buckets)} |"


# Options


def _options_page() -> Iterator[str]:
    yield f"# Options\n\n{_NOTE}\n"
    yield (
        "Durations are seconds (`float`) or `timedelta`; sizes are bytes. An argument wins over the environment, and that over\n"
        "the default. Arguments shown with a `=` are given by name only.\n"
    )
    yield "## Job options\n"
    yield "For `add`, `NewJob(options=)`, `upsert_schedule(options=)` and `default_options=`.\n"
    yield from _arguments(eventq.JobOptions, inspect.signature(eventq.JobOptions), _doc(eventq.JobOptions), JOB_DEFAULTS)
    yield f"\n{_RETENTION}"
    for title, cls in (
        ("Queue and SyncQueue", eventq.Queue),
        ("Worker", eventq.Worker),
        ("QueueScheduler", eventq.QueueScheduler),
    ):
        yield f"\n## {title}\n"
        yield from _arguments(cls, inspect.signature(cls.__init__), f"{_doc(cls)} {_doc(cls.__init__)}")
    yield "\n## Schedules\n\nFor `upsert_schedule`, of `Queue`, `SyncQueue` and `QueueScheduler`.\n"
    upsert = eventq.Queue.upsert_schedule
    yield from _arguments(eventq.Queue, inspect.signature(upsert), _doc(upsert))
    yield f"\n## Keep\n\n{_doc(eventq.Keep)}\n"
    yield f"\n## Limits\n\n{_doc(eventq.Limits)}\n\n| limit | default | meaning |\n| --- | --- | --- |"
    comments = _field_comments(eventq.Limits)
    for field in dataclasses.fields(eventq.Limits):
        meaning = comments.get(field.name) or f"bytes of a job's {field.name.replace('_', ' ')}"
        yield f"| `{field.name}` | {field.default} | {_cell(meaning)} |"
    yield f"\n## Addresses\n\n{_ADDRESSES}"
    yield "## Environment variables\n\n| variable | meaning |\n| --- | --- |"
    yield from (f"| `{name}` | {ENVIRONMENT[name]} |" for name in _environment())


def _arguments(cls: type, signature: inspect.Signature, doc: str, defaults: dict[str, str] | None = None) -> Iterator[str]:
    names = [each for each in signature.parameters.values() if each.name != "self"]
    said = _said(doc, [each.name for each in names])
    yield "| argument | type | default | meaning |\n| --- | --- | --- | --- |"
    for each in names:
        meaning = said.get(each.name) or ARGUMENTS.get(f"{each.name} of {cls.__name__}") or ARGUMENTS.get(each.name)
        if not meaning:
            raise Undescribed(f"{cls.__name__}, argument {each.name}")
        if defaults is not None:
            default = defaults[each.name]
        else:
            default = "required" if each.default is each.empty else f"`{_default(each.default)}`"
        shown = f"{each.name}=" if each.kind is each.KEYWORD_ONLY else each.name
        yield f"| `{shown}` | {_type(TYPES.get(each.name, each.annotation))} | {default} | {_cell(meaning)} |"


def _said(doc: str, names: list[str]) -> dict[str, str]:
    """Return what a docstring says of each name, in the house's form: name, colon, what, full stop."""
    known = "|".join(map(re.escape, names))
    parts = re.split(rf"(?:^|(?<=[.;:] )|(?<=\n))((?:{known})(?:, (?:{known}))*): ", doc)
    found: dict[str, str] = {}
    for heads, text in zip(parts[1::2], parts[2::2], strict=True):
        sentence = text.split("\n\n")[0].strip().removesuffix(".")
        found.update(dict.fromkeys(heads.split(", "), re.sub(r" Raises \w+$", "", sentence).removesuffix(".")))
    return found


def _field_comments(cls: type) -> dict[str, str]:
    """Return the `#:` comments above the fields of a class."""
    found: dict[str, str] = {}
    comment: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        if line.strip().startswith("#:"):
            comment.append(line.strip()[2:].strip())
        else:
            if comment and (name := re.match(r"\s+(\w+):", line)):
                found[name[1]] = " ".join(comment).removesuffix(".")
            comment = []
    return found


def _environment() -> list[str]:
    sources = [path for folder in ("eventq", "exporters") for path in (ROOT / folder).rglob("*.py")]
    named = {name for path in sources for name in re.findall(r"\bEVENTQ_[A-Z_]+\b", path.read_text())} - INTERNAL
    if named != set(ENVIRONMENT):
        raise Undescribed(f"environment variables {sorted(named ^ set(ENVIRONMENT))}: in the code or in the table, not in both")
    return sorted(named, key=list(ENVIRONMENT).index)


# API


def _api_page() -> Iterator[str]:
    yield f"# API\n\n{_NOTE}\n"
    yield "Everything is imported from `eventq`. Arguments and their defaults are in [Options](options.md).\n"
    public = {name: getattr(eventq, name) for name in eventq.__all__ if name != "__version__"}
    errors = {name: each for name, each in public.items() if isinstance(each, type) and issubclass(each, Exception)}
    rest = {name: each for name, each in public.items() if name not in errors}
    yield "| name | what |\n| --- | --- |"
    yield from (f"| [{name}](#{name.lower()}) | {_cell(_summary(each))} |" for name, each in rest.items())
    yield "| [Errors](#errors) | what is raised |"
    for name, each in rest.items():
        yield f"\n## {name}\n\n{_doc(each)}\n"
        if each is eventq.NewJob or not isinstance(each, type):
            yield f"`{name}{_signature(each)}`\n"
        if isinstance(each, type):
            yield from _members(each)
    yield "\n## Errors\n\n| error | raised |\n| --- | --- |"
    yield from (f"| `{name}`, {_bases(each)} | {_cell(_doc(each))} |" for name, each in errors.items())


def _members(cls: Any) -> Iterator[str]:
    if cls in (eventq.JobState, eventq.Durability):
        yield ", ".join(f"`{member}`" for member in cls) + "\n"
        return
    yield from (f"**`{name}`**\n\n{meaning}\n" for name, meaning in ATTRIBUTES.get(cls, {}).items())
    fields = [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else []
    for name in sorted(_public_names(cls), key=lambda name: (not isinstance(inspect.getattr_static(cls, name), property), name)):
        found: Any = inspect.getattr_static(cls, name)
        plain: Any = getattr(found, "__func__", found)
        if isinstance(found, property):
            yield f"**`{name}`**\n\n{_doc(plain)}\n"
        elif inspect.isfunction(plain) and name not in fields:
            prefix = "await " if inspect.iscoroutinefunction(plain) else ""
            yield f"**`{prefix}{name}{_signature(plain)}`**\n\n{_doc(plain)}\n"


def _public_names(cls: Any) -> list[str]:
    """Return what a class and its own bases offer, internal plumbing aside."""
    own: list[type] = [base for base in cls.__mro__ if base.__module__.startswith("eventq")]
    names = {name for base in own for name, value in vars(base).items() if not name.startswith("_") and _has_doc(value)}
    return sorted(names - {"in_child", "outcomes", "over", "scope"})


def _has_doc(value: object) -> bool:
    plain = getattr(value, "__func__", value)
    return (inspect.isfunction(plain) or isinstance(plain, property)) and bool(plain.__doc__)


def _signature(function: Callable[..., object]) -> str:
    shown: list[str] = []
    kind = None
    for each in inspect.signature(function).parameters.values():
        if each.name in ("self", "cls"):
            continue
        if each.kind is each.KEYWORD_ONLY and kind is not each.KEYWORD_ONLY:
            shown.append("*")
        kind = each.kind
        stars = "**" if kind is each.VAR_KEYWORD else "*" if kind is each.VAR_POSITIONAL else ""
        shown.append(f"{stars}{each.name}" if each.default is each.empty else f"{each.name}={_default(each.default)}")
    return f"({', '.join(shown)})"


def _bases(error: type) -> str:
    return " and ".join(f"a `{base.__name__}`" for base in error.__bases__)


# Command line


def _cli_page() -> Iterator[str]:
    yield f"# Command line\n\n{_NOTE}\n"
    yield 'Install it with `pip install "eventq[cli]"`; `python -m eventq` is the same as `eventq`.\n'
    group: Any = typer.main.get_command(app)
    # With those that other packages of this repository bring along.
    found = {name: group.get_command(None, name) for name in group.list_commands(None)}
    commands = {name: command for name, command in found.items() if not command.hidden}
    yield "| command | what |\n| --- | --- |"
    yield from (f"| [{name}](#{name}) | {_cell(_first_sentence(each.help))} |" for name, each in commands.items())
    for name, command in commands.items():
        places = [each.metavar for each in command.params if each.param_type_name == "argument"]
        usage = " ".join(["eventq", name, "[OPTIONS]", *places])
        yield f"\n## {name}\n\n`{usage}`\n\n{_plain(command.help)}\n"
        rows = [_parameter_row(each) for each in command.params if not getattr(each, "hidden", False) and each.name != "help"]
        if rows:
            yield "| argument or option | default | meaning |\n| --- | --- | --- |\n" + "\n".join(rows)


def _parameter_row(parameter: Any) -> str:
    names = [parameter.metavar] if parameter.param_type_name == "argument" else [*parameter.opts, *parameter.secondary_opts]
    shown = ", ".join(f"`{each}`" for each in names)
    said: Any = getattr(parameter, "show_default", None)
    is_flag = isinstance(parameter.default, bool)
    is_said = parameter.default is not None and not is_flag and said is not False and not callable(parameter.default)
    default = (
        str(said) if isinstance(said, str) else f"`{getattr(parameter.default, 'value', parameter.default)}`" if is_said else ""
    )
    return f"| {shown} | {'required' if parameter.required else default} | {_cell(_plain(getattr(parameter, 'help', '')))} |"


# Words


def _doc(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    if not text or text.startswith("str(object"):
        raise Undescribed(getattr(thing, "__qualname__", repr(thing)))
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _summary(thing: Any) -> str:
    return _doc(thing).split("\n\n")[0]


def _first_sentence(text: str | None) -> str:
    return _plain(text).split("\n\n")[0]


def _plain(text: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (text or "").replace("\b", "").split("\n\n"))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").removesuffix(".")


def _default(value: object) -> str:
    if isinstance(value, eventq.Limits):
        return f"{type(value).__name__}()"
    if isinstance(value, str):
        return repr(str(value))
    return "Any" if value is Any else repr(value)


def _type(annotation: object) -> str:
    if isinstance(annotation, str):
        text = annotation
    elif isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is not None:
        text = str(annotation)
    else:
        text = getattr(annotation, "__name__", str(annotation))
    text = re.sub(r"\b(?:typing|collections\.abc|datetime|eventq\.\w+)\.", "", text)
    return "`" + text.replace("|", "or") + "`"


if __name__ == "__main__":
    sys.exit(main())
