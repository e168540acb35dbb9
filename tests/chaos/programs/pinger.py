"""Ping a server every two milliseconds until stdin is closed; then print, in ms: how long each ping took, and how late the machine
let this process go on after each pause.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

PAUSE = 0.002
#: However soon it is stopped, so that there is something to judge.
LEAST = 50


def main(port: int) -> None:
    """Ping."""
    pings: list[float] = []
    late: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print("ready", flush=True)
        while True:
            began = time.perf_counter()
            connection.sendall(b"PING\r\n")
            connection.recv(64)
            ended = time.perf_counter()
            pings.append((ended - began) * 1000)
            if select.select([sys.stdin], [], [], 0)[0] and len(pings) >= LEAST:
                break
            time.sleep(PAUSE)  # sleep-ok: the pace of pings
            late.append((time.perf_counter() - ended - PAUSE) * 1000)
    print(json.dumps([pings, late]), flush=True)


main(int(sys.argv[1]))
