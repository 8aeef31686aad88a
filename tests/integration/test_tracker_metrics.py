"""What a tracker's `/metrics` shows of sagas that it has seen."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from choreo import Event, Failure, Service, Settings, connect
from choreo.log.memory import MemoryLog
from choreo.observe.metrics import exposition
from choreo.runtime.run import running
from choreo.saga.store import make_tracker_store
from choreo.saga.tracker import tracking
from tests.support import eventually


class Asked(Event, topic="asked", key="id"):
    id: str


class Charged(Event, topic="charged", key="id"):
    id: str


class Refused(Failure, topic="refused", key="id", ends="failed"):
    id: str


class Answered(Event, topic="answered", key="id", ends="completed"):
    id: str


class Refunded(Event, topic="refunded", key="id"):
    id: str


service = Service("desk-of-metrics")


@service.on(Asked)
async def charge(asked: Asked) -> Charged:
    return Charged(id=asked.id)


@service.on(Asked)
async def answer(asked: Asked) -> Answered | Refused:
    if asked.id == "wrong":
        raise ValueError(asked.id)
    return Refused(id=asked.id) if asked.id == "no" else Answered(id=asked.id)


@service.compensates(charge, on=(Refused,))
async def refund(charged: Charged, refused: Refused) -> Refunded:
    raise RuntimeError(f"cannot refund {charged.id}")


async def shown() -> dict[tuple[str, frozenset[str]], float]:
    """Samples by their names and the values of their labels."""
    text = (await exposition())[0].decode()
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_sagas_are_counted_as_they_begin_and_end_and_what_holds_them_up_is_shown(tmp_path: Path) -> None:
    before = await shown()

    def more(now: dict[tuple[str, frozenset[str]], float], name: str, *labels: str) -> float:
        return now.get((name, frozenset(labels)), 0) - before.get((name, frozenset(labels)), 0)

    async with MemoryLog() as log:
        settings = Settings(log="memory://", store=f"sqlite:///{tmp_path}/{{service}}.db", registry=str(tmp_path))
        store = make_tracker_store(f"sqlite:///{tmp_path}/tracker.db")
        await store.open()
        async with (
            running([service], settings, log=log),
            tracking(settings, [service], log=log, store=store) as tracker,
            connect(settings, log=log) as bus,
        ):
            for name in ("yes", "too", "no", "wrong"):
                await bus.publish(Asked(id=name))

            async def is_over() -> bool:
                await tracker.settled()
                return sum(count.sagas for count in await store.counts() if count.state in {"completed", "failed"}) == 4

            await eventually(is_over)
            await tracker.show()
            now = await shown()
        await store.close()
    assert more(now, "choreo_saga_started_total", "Asked") == 4
    assert more(now, "choreo_saga_ended_total", "Asked", "completed") == 2
    assert more(now, "choreo_saga_duration_seconds_count", "Asked", "completed") == 2
    assert now["choreo_saga_active", frozenset({"Asked", "failed"})] == 2
    assert now["choreo_dead_letters_open", frozenset({"desk-of-metrics", "exhausted"})] == 1
    assert now["choreo_dead_letters_open", frozenset({"desk-of-metrics", "compensation"})] == 1
    assert now["choreo_compensation_owed", frozenset({"desk-of-metrics", "refund"})] == 1
    assert now["choreo_dead_letters_oldest_age_seconds", frozenset({"desk-of-metrics"})] >= 0
    assert now["choreo_tracker_lag_seconds", frozenset({"asked"})] == 0
    assert more(now, "choreo_tracker_records_total", "asked") == 4
