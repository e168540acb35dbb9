"""The exporters' packages are there and do nothing yet."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["eventq_prometheus", "eventq_opentelemetry"])
def test_importing_registers_nothing_and_starts_nothing(package: str) -> None:
    """Importing an exporter starts no thread, loads no exporting library, and promises no names."""
    code = (
        f"import threading, sys, {package} as exporter\n"
        "assert exporter.__all__ == [] and threading.active_count() == 1\n"
        "assert not {'prometheus_client', 'opentelemetry.sdk'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (0, "") == (done.returncode, done.stderr)
