"""Importing the exporters' packages does nothing."""

import subprocess
import sys

import pytest

import eventq_prometheus


@pytest.mark.parametrize("package", ["eventq_prometheus", "eventq_opentelemetry"])
def test_importing_registers_nothing_and_starts_nothing(package: str) -> None:
    """It starts no thread and loads no exporting library: the names it promises are loaded when they are asked for."""
    code = (
        f"import threading, sys, {package} as exporter\n"
        "assert isinstance(exporter.__all__, list) and threading.active_count() == 1\n"
        "assert not {'prometheus_client', 'opentelemetry.sdk'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (0, "") == (done.returncode, done.stderr)


def test_what_is_promised_is_there() -> None:
    """Every name of the Prometheus exporter, and no other."""
    assert all(getattr(eventq_prometheus, name) for name in eventq_prometheus.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        eventq_prometheus.nothing  # noqa: B018
