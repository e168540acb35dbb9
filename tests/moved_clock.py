"""The clock that tests move, on the server and for one queue at a time. The text that ships has no such override: here the reply of
TIME is moved, before anything is made of it. A process that takes part in such a test calls `let_clocks_move` first of all.
"""

from __future__ import annotations

from importlib.resources import files

from eventq import scripts

READ_TIME = "local time = redis.call('TIME')\n"
MOVE_TIME = """\
local clock_offset = tonumber(redis.call('HGET', meta_key, 'clock_offset')) or 0
local moved_us = time[1] * 1000000 + time[2] + clock_offset * 1000
time = {math.floor(moved_us / 1000000), moved_us % 1000000}
"""
PRODUCTION_CLOCK = (files("eventq") / "lua" / "include" / "clock.lua").read_text()


def let_clocks_move() -> None:
    """From now on, scripts of this process see `meta.clock_offset` ms more than the server's time."""
    assert READ_TIME in PRODUCTION_CLOCK, "the clock include reads time in another way; the tests' clock must follow"
    scripts.replace_include("clock", PRODUCTION_CLOCK.replace(READ_TIME, READ_TIME + MOVE_TIME))
