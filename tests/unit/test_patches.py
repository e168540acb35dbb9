"""Which releases of Redis and Valkey `eventq doctor` warns of, and that SECURITY.md says the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eventq.cli.doctor_server import _patches
from eventq.cli.patches import FLAWS, MAINTAINED, lacking, least_patched

LUA = ["CVE-2025-49844", "CVE-2025-46817", "CVE-2025-46818"]


@pytest.mark.parametrize(
    ("kind", "version", "least", "lacks"),
    [
        ("redis", "7.2.16", "7.2.16", []),
        ("redis", "7.2.15", "7.2.16", ["CVE-2026-81934"]),
        ("redis", "7.2.10", "7.2.16", ["CVE-2026-81934", *LUA]),
        ("redis", "7.4.8", "7.4.11", ["CVE-2026-81934", "CVE-2026-23479"]),
        ("redis", "7.4.11", "7.4.11", []),
        ("redis", "8.2.9", "8.2.9", []),
        ("redis", "8.8.1", "8.8.2", ["CVE-2026-81934"]),
        ("redis", "8.10.0", "8.10.1", ["CVE-2026-81934"]),
        ("redis", "8.10.1", "8.10.1", []),
        ("redis", "8.12.0", "", []),
        ("redis", "9.0.0", "", []),
        ("redis", "7.0.15", None, ["CVE-2026-81934", *LUA, "CVE-2024-46981", "CVE-2024-31449"]),
        ("redis", "8.0.6", None, ["CVE-2026-81934", "CVE-2026-23479"]),
        ("valkey", "7.2.13", "7.2.14", ["CVE-2026-63639"]),
        ("valkey", "8.0.5", "8.0.10", ["CVE-2026-63639", "CVE-2026-23479", *LUA]),
        ("valkey", "9.0.4", "9.0.5", ["CVE-2026-63639"]),
        ("valkey", "9.0.5", "9.0.5", []),
        ("valkey", "9.1.0", "9.1.2", ["GHSA-fq2f-crmw-q97r", "CVE-2026-63639"]),
        ("valkey", "9.1.1", "9.1.2", ["GHSA-fq2f-crmw-q97r"]),
        ("valkey", "9.1.2", "9.1.2", []),
        ("valkey", "9.2.0", "", []),
    ],
)
def test_what_a_release_lacks(kind: str, version: str, least: str | None, lacks: list[str]) -> None:
    """Releases on both sides of each fix, lines that are newer than the table, and lines that get no fixes any more."""
    assert (least, lacks) == (least_patched(kind, version), lacking(kind, version))


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_the_least_release_of_a_line_lacks_nothing_and_the_one_before_it_does(kind: str) -> None:
    """What is advised is enough, and no more than is needed."""
    for line in MAINTAINED[kind].split():
        least = least_patched(kind, f"{line}.0")
        assert least is not None and [] == lacking(kind, least)
        patch = int(least.rpartition(".")[2])
        assert lacking(kind, f"{line}.{patch - 1}"), least


def test_what_the_doctor_says() -> None:
    """The release to take where there is one; that nobody fixes the line any more; and where it cannot know."""
    old = _patches({"redis_version": "7.2.4"})
    assert ("patches", "warning") == (old.check, old.level)
    assert "redis 7.2.4" in old.message and "CVE-2026-81934" in old.message and "upgrade to redis 7.2.16" in old.advice
    over = _patches({"redis_version": "7.0.15"})
    assert "warning" == over.level and "a release of redis that still gets fixes" in over.advice
    assert "ok" == _patches({"server_name": "valkey", "valkey_version": "9.1.2", "redis_version": "7.2.4"}).level
    assert "unknown" == _patches({"server_name": "other", "other_version": "1.0.0"}).level


def test_security_md_shows_the_same_table() -> None:
    """The page is what people read; what the doctor warns of is what it lists."""
    page = (Path(__file__).parents[2] / "SECURITY.md").read_text()
    rows = re.findall(r"^\| ((?:CVE|GHSA)-[^|]+) \| ([^|]+) \| ([^|]*) \| ([^|]*) \|$", page, re.MULTILINE)
    assert [(flaw.names, flaw.what, flaw.redis or "-", flaw.valkey or "-") for flaw in FLAWS] == [
        (names, what, redis.replace(", ", " ").strip(), valkey.replace(", ", " ").strip()) for names, what, redis, valkey in rows
    ]
    for kind in MAINTAINED:
        least = ", ".join(str(least_patched(kind, f"{line}.0")) for line in MAINTAINED[kind].split())
        assert f"| {kind.capitalize()} | {least} |" in page
