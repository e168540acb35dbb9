"""`eventq alert-rules`: the rules with the user's own parameters, to stdout."""

from __future__ import annotations

import shlex
from enum import StrEnum
from typing import Annotated, Any

import typer

from eventq.cli.runtime import UsageError, exit_codes

__all__ = ["RuleFormat", "app"]

app = typer.Typer(name="alert-rules", add_completion=False, pretty_exceptions_enable=False)


class RuleFormat(StrEnum):
    """What the rules are for."""

    prometheus = "prometheus"
    kubernetes = "kubernetes"


@app.command()
def alert_rules(
    *,
    objective: Annotated[
        float, typer.Option(help="Share of the jobs that may be expected to end well; the rest is the error budget.")
    ] = 0.99,
    chosen: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter, such as latency_warning=10m; may be given again."),
    ] = None,
    form: Annotated[
        RuleFormat, typer.Option("--format", help="A rule file, or a PrometheusRule for the Prometheus operator.")
    ] = RuleFormat.prometheus,
) -> None:
    """Print the alert rules for the metrics of the Prometheus exporter. A name that --set does not know lists all of them.

    Exit code 2: a parameter that cannot be.
    """
    with exit_codes():
        from eventq_prometheus.rules import RuleSettings, kubernetes_rules, parse_setting, prometheus_rules

        values: dict[str, Any] = {"objective": objective}
        try:
            values |= map(parse_setting, chosen or ())
            settings = RuleSettings(**values)
        except ValueError as error:
            raise UsageError(str(error)) from error
        words = ["eventq", "alert-rules", "--objective", f"{settings.objective:g}"]
        words += [word for each in chosen or () for word in ("--set", each)]
        words += ["--format", form.value] if form is RuleFormat.kubernetes else []
        render = kubernetes_rules if form is RuleFormat.kubernetes else prometheus_rules
        try:
            text = render(settings, made_by=shlex.join(words))
        except ModuleNotFoundError as error:
            raise UsageError(f'{error.name} is not installed; pip install "eventq[prometheus]"') from error
        typer.echo(text, nl=False)
