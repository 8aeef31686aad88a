"""What a service process is at just now, told on SIGUSR1: for rounds that come to rest with something missing."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

from choreo.runtime.instance import Instance

MARK = "state: "
END = f"{MARK}that is all"
_instances: list[Any] = []


def tell_on_signal() -> None:
    """From now on SIGUSR1 prints the state of all instances, and where their tasks wait."""
    start = Instance.start

    async def noted(self: Instance) -> None:
        _instances.append(self)
        await start(self)

    Instance.start = noted  # type: ignore[method-assign]
    signal.signal(signal.SIGUSR1, _tell)


def _tell(_number: int, _frame: FrameType | None) -> None:
    lines = [line for instance in _instances if instance._running for line in _about(instance)]
    waits = Counter(_where(task) for task in asyncio.all_tasks())
    lines += [f"{count} x {where}" for where, count in sorted(waits.items())]
    sys.stdout.write("".join(f"{MARK}{line}\n" for line in lines) + f"{END}\n")
    sys.stdout.flush()


def _where(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    at = f"{frames[-1].f_code.co_filename.rpartition('/')[2]}:{frames[-1].f_lineno}" if frames else "?"
    return f"{getattr(task.get_coro(), '__qualname__', '?')} at {at}"


def _about(one: Any) -> Iterator[str]:
    yield (
        f"{one.service.name}: lanes {len(one._lanes._lanes)} ready {len(one._lanes._ready)}"
        f" deferred {len(one._lanes._deferred)} load {one._pressure.load} backlog {one._publisher.backlog}"
        f" unit locked {one._unit.lock.locked()} in transaction {one._store.in_transaction}"
        f" pending {one._unit.jobs} parked {len(one._unit.parked)}"
        f" ownership locked {one._ownership.lock.locked()} recovery needed {one._recovery._needed.is_set()}"
    )
    yield (
        f"  joined {one._consumer.joined} closed {_names(one._pressure._closed)} doubtful {_names(one._ownership.doubtful)}"
        f" assigned, not owned {_names(one._consumer.assignment - one._owned.keys())}"
    )
    if owner := getattr(one._consumer, "_owner", None):
        yield (
            f"  buffer {len(owner.buffer._records)} held {len(owner.buffer._held)} paused {_names(owner.buffer.paused)}"
            f" stalled {owner.partitions.stalled} taking {_names(owner.partitions.taking)}"
            f" asking {owner.partitions.asking} failure {owner.failure} commits {len(owner.commits._waiting)}"
        )
    for at, partition in sorted(one._owned.items()):
        tracker = partition.tracker
        yield (
            f"  {at[0]}/{at[1]} at {tracker.watermark} next {tracker._next} open {tracker.open} epoch {partition.epoch}"
            f" running {partition.running} leaving {partition.leaving.is_set()} alone {partition.alone}"
        )


def _names(partitions: Any) -> str:
    return "[" + " ".join(f"{topic}/{number}" for topic, number in sorted(partitions)) + "]"
