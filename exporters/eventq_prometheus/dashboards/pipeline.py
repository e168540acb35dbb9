"""Dashboard E: the exporter, its reading of the event streams, and Redis. Can the other dashboards be believed?"""

from __future__ import annotations

from typing import Final

from eventq_prometheus.dashboards.model import Dashboard, Json, Row, Target
from eventq_prometheus.dashboards.panels import (
    NAMED_BY_QUEUE,
    limits,
    mapped,
    stat,
    state_timeline,
    time_series,
)
from eventq_prometheus.dashboards.query import QUEUE, aggregated, grown, of_program, quantile, rate, series
from eventq_prometheus.dashboards.shared import LAG_SECONDS, LAG_SHARE, NONE_IS_BAD, SOME_IS_WORTH_A_LOOK, dashboard
from eventq_prometheus.dashboards.tables import Column, Label, table

__all__ = ["PIPELINE"]

#: A lag that is worth a thought. Below it a queue's first events would look like the end of its retention.
_SOME_LAG_SECONDS: Final = 10
_SAVED_LATE_SECONDS: Final = 60
_PING_SECONDS: Final = 0.1
_INSTANCE: Final = ("namespace", "instance")
_PROGRAM: Final = ("instance", "version", "python", "server", "server_version")
_LAG: Final = aggregated("max", QUEUE, series("eventq_event_lag_seconds"))
_RETENTION: Final = aggregated("max", QUEUE, series("eventq_event_stream_retention_seconds"))
_SAVED: Final = series("eventq_checkpoint_timestamp_seconds")
_BY_INSTANCE: Final = "{{instance}}"
_DASHED: Final[Json] = {
    "matcher": {"id": "byRegexp", "options": "/^retention/"},
    "properties": [{"id": "custom.lineStyle", "value": {"dash": [6, 4], "fill": "dash"}}],
}


def _bars(name: str, *labels: str) -> str:
    return aggregated("sum", labels, f"increase({series(name)}[$__rate_interval])")


_NOW: Final = Row(
    "Now",
    (
        stat(
            "Exporters up",
            "Exporters that Prometheus can scrape. One reads, others stand by.",
            f"sum({of_program('up')})",
            "short",
            thresholds=NONE_IS_BAD,
            empty="no exporter",
        ),
        stat(
            "Redis",
            "Whether Redis answered every exporter at its last scrape.",
            aggregated("min", (), series("eventq_up")),
            "short",
            mappings=(mapped({"0": ("away", "red"), "1": ("answers", "green")}),),
            empty="no exporter",
        ),
        stat(
            "Readers",
            "Exporters that read the events. Exactly one is right: with none nothing is counted.",
            aggregated("sum", (), series("eventq_exporter_leader")),
            "short",
            thresholds=limits((1, "green"), (2, "orange"), start="red"),
            empty="no exporter",
        ),
        stat("Queues read", "Queues whose events are read.", aggregated("max", (), series("eventq_exporter_queues")), "short"),
        stat(
            "Lag",
            "Age of the oldest event of any queue that is not read yet.",
            aggregated("max", (), series("eventq_event_lag_seconds")),
            "s",
            thresholds=limits((_SOME_LAG_SECONDS, "orange"), (LAG_SECONDS, "red")),
        ),
        stat(
            "Retention used",
            f"Lag, from {_SOME_LAG_SECONDS} seconds on, as a share of what the event stream keeps, where it is worst. "
            "At 100 % events are lost.",
            f"max(({_LAG} > {_SOME_LAG_SECONDS}) / ({_RETENTION} > 0)) or 0 * max({_LAG})",
            "percentunit",
            thresholds=limits((0.25, "orange"), (LAG_SHARE, "red")),
            empty="no queues",
        ),
        stat(
            "Events lost",
            "Events in the time shown that nobody can read any more. Histograms and breakdowns lack them; totals do not.",
            aggregated("sum", (), grown("eventq_events_lost_total")),
            "short",
            thresholds=SOME_IS_WORTH_A_LOOK,
            instant=True,
            decimals=0,
        ),
        stat(
            "Last save, ago",
            "How long ago positions and counters were saved. A restarted exporter goes on from there.",
            f"time() - max({_SAVED})",
            "s",
            thresholds=limits((_SAVED_LATE_SECONDS, "orange"), (5 * _SAVED_LATE_SECONDS, "red")),
            empty="never",
        ),
    ),
)

_EVENTS: Final = Row(
    "Events",
    (
        time_series(
            "Lag and retention",
            "Age of the oldest event not read yet (lag) and of the oldest event kept (retention, dashed), by queue. What lies "
            "between the two is how long the exporter may be away; where they meet, events are lost. A lag of 0 is not drawn.",
            (
                Target(_LAG, f"lag {NAMED_BY_QUEUE}"),
                Target(_RETENTION, f"retention {NAMED_BY_QUEUE}"),
            ),
            "s",
            logarithmic=True,
            overrides=(_DASHED,),
            width=12,
        ),
        time_series(
            "Events not read yet, by queue",
            "Events that the exporter has still to read.",
            (Target(aggregated("max", QUEUE, series("eventq_event_lag")), NAMED_BY_QUEUE),),
            "short",
            width=12,
        ),
        time_series(
            "Events read by kind",
            "Events per second that the exporter read.",
            (Target(aggregated("sum", ("event",), rate("eventq_events_processed_total")), "{{event}}"),),
            "ops",
            stacked=True,
            width=12,
        ),
        time_series(
            "Events lost and undone",
            "Lost, by cause: trimmed before they were read, or undecodable. "
            "Undone: read, and lost by Redis afterwards, in a failover or a restart from an older save.",
            (
                Target(_bars("eventq_events_lost_total", "cause"), "{{cause}}"),
                Target(_bars("eventq_events_undone_total"), "undone"),
            ),
            "short",
            bars=True,
            stacked=True,
            width=12,
        ),
        time_series(
            "Entries in the event streams",
            "Entries that each queue's stream keeps; one holds up to 100 events.",
            (Target(aggregated("max", QUEUE, series("eventq_event_stream_length")), NAMED_BY_QUEUE),),
            "short",
        ),
        time_series(
            "Last save, ago",
            "Seconds since positions and counters were saved.",
            (Target(f"time() - max by (instance) ({_SAVED})", _BY_INSTANCE),),
            "s",
            thresholds=limits((_SAVED_LATE_SECONDS, "orange"), (5 * _SAVED_LATE_SECONDS, "red")),
        ),
        time_series(
            "Label values past their cap",
            "Events whose job name, error type or schedule was one too many and is counted as __other__. "
            "Names that are made up for each job do this.",
            (Target(_bars("eventq_label_overflow_total", "label"), "{{label}}"),),
            "short",
            bars=True,
            stacked=True,
        ),
    ),
)

_REDIS: Final = Row(
    "Redis",
    (
        time_series(
            "Ping",
            "Round trip from the exporter to Redis, once at each scrape.",
            (Target(aggregated("max", _INSTANCE, series("eventq_redis_ping_seconds")), _BY_INSTANCE),),
            "s",
            thresholds=limits((_PING_SECONDS, "orange")),
        ),
        time_series(
            "The exporter's calls, p99",
            "Seconds that 99 % of the exporter's own calls stayed below, by what they were for.",
            (Target(quantile(0.99, "eventq_redis_command_duration_seconds", "command"), "{{command}}"),),
            "s",
        ),
        time_series(
            "Connections made again",
            "Connections to Redis that broke and had to be made again.",
            (Target(_bars("eventq_redis_reconnects_total", "instance"), _BY_INSTANCE),),
            "short",
            bars=True,
            stacked=True,
        ),
    ),
)

_COLLECTOR: Final = ("instance", "collector")

_EXPORTER: Final = Row(
    "Exporter",
    (
        state_timeline(
            "Parts of the scrape",
            "Whether each part of a scrape was done in time. If it was not, its values are missing or old.",
            Target(aggregated("min", _COLLECTOR, series("eventq_scrape_collector_success")), "{{collector}} {{instance}}"),
            mapped({"0": ("failed", "red"), "1": ("done", "green")}),
            width=8,
            height=8,
        ),
        time_series(
            "Duration of the scrape by part",
            "Seconds that the exporter took for each part of a scrape. Prometheus gives up after 10.",
            (Target(aggregated("max", _COLLECTOR, series("eventq_scrape_duration_seconds")), "{{collector}} {{instance}}"),),
            "s",
        ),
        time_series(
            "Duration of the scrape as Prometheus sees it",
            "Seconds from Prometheus' request to the end of the answer.",
            (Target(of_program("scrape_duration_seconds"), _BY_INSTANCE),),
            "s",
            thresholds=limits((5, "orange"), (10, "red")),
        ),
        time_series(
            "Samples in a scrape",
            "How many series the exporter has. It grows with queues, job names, error types and schedules.",
            (Target(of_program("scrape_samples_scraped"), _BY_INSTANCE),),
            "short",
            width=6,
        ),
        time_series(
            "Processor time",
            "Share of one processor that the exporter uses.",
            (Target(of_program("process_cpu_seconds_total", "rate"), _BY_INSTANCE),),
            "percentunit",
            width=6,
        ),
        time_series(
            "Memory",
            "Resident memory of the exporter.",
            (Target(of_program("process_resident_memory_bytes"), _BY_INSTANCE),),
            "bytes",
            width=6,
        ),
        time_series(
            "Open files",
            "File descriptors that the exporter has open. A line that only climbs is a leak.",
            (Target(of_program("process_open_fds"), _BY_INSTANCE),),
            "short",
            width=6,
        ),
        table(
            "What is running",
            "A row for each exporter: its version, and the server it reads from.",
            (
                Label("instance", "Exporter"),
                Label("version", "eventq"),
                Label("python", "Python"),
                Label("server", "Server"),
                Label("server_version", "Server version"),
            ),
            (
                Column("Known", aggregated("max", _PROGRAM, series("eventq_build_info")), hidden=True),
                Column("Reads", aggregated("max", ("instance",), series("eventq_exporter_leader")), "bool_yes_no"),
                Column(
                    "Started, ago", f"time() - max by (instance) ({of_program('process_start_time_seconds')})", "s", decimals=0
                ),
            ),
            sort_by="Started, ago",
            height=5,
            empty="no exporter",
        ),
    ),
)

#: The dashboard.
PIPELINE: Final[Dashboard] = dashboard(
    "eventq-pipeline",
    "Pipeline health",
    "The exporter, its reading of the event streams, and Redis: whether the other dashboards can be believed.",
    (_NOW, _EVENTS, _REDIS, _EXPORTER),
)
