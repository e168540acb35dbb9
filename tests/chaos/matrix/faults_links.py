"""Faults between processes and the server: lost, repeated, late, cut and slow frames, connections that are dead or gone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import redis

from ..faults import Ending, Fault, Request, Rule, calls_a_script
from ..proxy import FaultProxy
from .faults_processes import OVERLAPS, replaced
from .kinds import Faults, Link
from .scene import LEASE

if TYPE_CHECKING:
    from .scene import Scene

fault = Faults()


def is_of_a_lane(request: Request) -> bool:
    """Filter: what records outcomes and claims. By the connection's name: here scripts have another clock, and so other names."""
    return request.client == "eventq-worker" and calls_a_script(request)


def link_of(scene: Scene) -> FaultProxy:
    """Return the proxy of the scene."""
    assert scene.proxy is not None
    return scene.proxy


async def while_it_lasts(scene: Scene, *rules: Rule, least: float = 0.8, most: float = 1.5) -> None:
    """Let rules strike for a while."""
    proxy = link_of(scene)
    proxy.inject(*rules)
    await scene.pause(least, most)
    proxy.clear()


@fault(4, "worker killed after its outcomes were recorded, the reply lost", link=Link.ONE, stalls=True)
async def killed_after_the_record(scene: Scene) -> None:
    victim = scene.worker
    link_of(scene).inject(Rule(Fault.LOSE_REPLY, when=is_of_a_lane, then=Ending.SILENCE, times=1))
    await scene.until(lambda: link_of(scene).counts[Fault.LOSE_REPLY], "a lost reply")
    await replaced(scene, victim)
    link_of(scene).clear()
    link_of(scene).counts.clear()


@fault(5, "worker killed before it learned what it claimed", link=Link.ONE, stalls=True)
async def killed_before_the_claim_arrived(scene: Scene) -> None:
    victim = scene.worker
    link_of(scene).inject(Rule(Fault.CUT_REPLY, when=is_of_a_lane, then=Ending.SILENCE, times=1))
    await scene.until(lambda: link_of(scene).counts[Fault.CUT_REPLY], "a reply that was cut")
    await replaced(scene, victim)
    link_of(scene).counts.clear()


@fault(10, "the heartbeat alone is cut off", link=Link.ONE, tolerates=OVERLAPS, times=1, stalls=True)
async def heartbeat_cut_off(scene: Scene) -> None:
    link_of(scene).blackhole("eventq-heartbeat")
    await scene.pause(LEASE * 1.5, LEASE * 2)
    link_of(scene).heal()


@fault(18, "every connection killed, again and again", times=4)
async def connections_killed(scene: Scene) -> None:
    await scene.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")


@fault(19, "only the connections that wait for work killed", times=3)
async def waiting_connections_killed(scene: Scene) -> None:
    clients: list[dict[str, str]] = await scene.ask("CLIENT LIST")
    for client in clients:
        if client["name"] == "eventq-blocking":
            await scene.ask("CLIENT", "KILL", "ID", client["id"])


@fault(20, "connections refused", times=1, halts=True)
async def connections_refused(scene: Scene) -> None:
    await asyncio.to_thread(refuse_connections, scene, scene.chance.uniform(0.5, 1.0))


def refuse_connections(scene: Scene, seconds: float) -> None:
    """Keep the one connection that is left, so that the limit can be taken back; a server that restarts has taken it back itself."""
    with contextlib.suppress(redis.RedisError), scene.client() as client:
        client.execute_command("CONFIG", "SET", "maxclients", "1")
        client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(seconds)  # sleep-ok: so long it lasts
        client.execute_command("CONFIG", "SET", "maxclients", "10000")


@fault(21, "replies lost", link=Link.ALL, times=1)
async def replies_lost(scene: Scene) -> None:
    await while_it_lasts(scene, Rule(Fault.LOSE_REPLY, 0.1, when=calls_a_script))


@fault(22, "requests lost", link=Link.ALL, times=1)
async def requests_lost(scene: Scene) -> None:
    await while_it_lasts(scene, Rule(Fault.LOSE_REQUEST, 0.1), Rule(Fault.CUT_REQUEST, 0.05))


@fault(23, "requests repeated, and earlier ones again", link=Link.ALL, times=1)
async def requests_repeated(scene: Scene) -> None:
    await while_it_lasts(
        scene,
        Rule(Fault.DUPLICATE, 0.2, when=calls_a_script),
        Rule(Fault.REPLAY, 0.2, when=calls_a_script),
        Rule(Fault.LATE, 0.05, when=calls_a_script, seconds=0.3),
    )


@fault(24, "clients vanish, the server is not told", link=Link.ALL, times=2)
async def clients_vanish(scene: Scene) -> None:
    link_of(scene).vanish()
    await scene.pause(0.3, 0.6)


@fault(25, "the server vanishes, clients are not told", link=Link.ALL, times=1, tolerates=OVERLAPS)
async def server_vanishes(scene: Scene) -> None:
    link_of(scene).blackhole(new=False)
    await scene.pause(0.5, 1.0)


@fault(26, "a slow link", link=Link.ALL, times=1)
async def slow_link(scene: Scene) -> None:
    slow = (Rule(Fault.DELAY_REQUEST, 0.2, seconds=0.2), Rule(Fault.DELAY_REPLY, 0.2, seconds=0.2))
    pieces = (Rule(Fault.SPLIT_REQUEST, 0.3, size=200), Rule(Fault.SPLIT_REPLY, 0.3, size=200))
    await while_it_lasts(scene, *slow, *pieces)


@fault(27, "one worker cut off for longer than its lease", link=Link.ONE, tolerates=OVERLAPS, times=1, stalls=True)
async def worker_cut_off(scene: Scene) -> None:
    link_of(scene).blackhole()
    await scene.pause(LEASE * 1.5, LEASE * 2)
    link_of(scene).heal()


@fault(28, "everybody cut off for longer than a lease", link=Link.ALL, tolerates=OVERLAPS, times=1, stalls=True, halts=True)
async def everybody_cut_off(scene: Scene) -> None:
    link_of(scene).blackhole()
    await scene.pause(LEASE * 1.2, LEASE * 1.5)
    link_of(scene).heal()
