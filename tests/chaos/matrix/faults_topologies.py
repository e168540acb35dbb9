"""Faults of servers that belong together: failovers behind sentinels, slots that move, nodes that die."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from .kinds import Faults, Ground

if TYPE_CHECKING:
    from .scene import Scene

fault = Faults()


@fault(41, "failover by the sentinels", ground=Ground.SENTINEL, lossy=True, times=1, stalls=True)
async def failover(scene: Scene) -> None:
    await asyncio.to_thread(scene.sentinel.failover)


@fault(42, "the primary killed", ground=Ground.SENTINEL, lossy=True, times=1, stalls=True)
async def primary_killed(scene: Scene) -> None:
    primary = await asyncio.to_thread(scene.sentinel.kill_primary)
    await asyncio.to_thread(scene.sentinel.wait_until_whole)
    await asyncio.to_thread(scene.sentinel.restart, primary)


#: An old primary that has lost its replica takes nothing more.
SAFE = ("--min-replicas-to-write", "1", "--min-replicas-max-lag", "1")


@fault(
    41, "failover by the sentinels, adds confirmed by the replica",
    ground=Ground.SENTINEL, server=SAFE, lossy=True, confirmed=True, stalls=True, times=1,
)  # fmt: skip
async def failover_confirmed(scene: Scene) -> None:
    await failover(scene)


@fault(
    42, "the primary killed, adds confirmed by the replica",
    ground=Ground.SENTINEL, server=SAFE, lossy=True, confirmed=True, stalls=True, times=1,
)  # fmt: skip
async def primary_killed_confirmed(scene: Scene) -> None:
    await primary_killed(scene)


@fault(45, "the queue's slot moves", ground=Ground.CLUSTER, times=2, halts=True)
async def slot_moves(scene: Scene) -> None:
    others = [node for node in scene.cluster.nodes if node is not scene.server]
    await asyncio.to_thread(scene.cluster.move_slot, scene.queue, scene.chance.choice(others))


@fault(46, "the queue's node killed, its slot uncovered", ground=Ground.CLUSTER, persistence=("always",), times=1, halts=True)
async def node_killed(scene: Scene) -> None:
    node = scene.cluster.node_of(scene.queue)
    await asyncio.to_thread(node.kill)
    await scene.pause(1.5, 3.0)
    await asyncio.to_thread(scene.cluster.restart, node)
