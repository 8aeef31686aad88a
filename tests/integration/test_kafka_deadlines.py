"""Deadlines on a real broker, where the marks of transactions lie at the end of a partition and are no records."""

from __future__ import annotations

from uuid import uuid4

import pytest

from choreo import Context, Event, Service, Settings, connect
from choreo.log import NewRecord, Topic, TopicPartition, open_log
from choreo.runtime.run import running
from tests.support import eventually

pytestmark = pytest.mark.kafka

RUN = uuid4().hex[:8]
PARTITIONS = 2


class Asked(Event, topic=f"asked-{RUN}", key="id"):
    """Sets the deadline."""

    id: str


class Answered(Event, topic=f"answers-{RUN}", key="id"):
    """Stops it."""

    id: str


def service(called: list[str], name: str) -> Service:
    made = Service(name)

    @made.deadline(Asked, within="1s", unless=(Answered,))
    async def expire(asked: Asked, ctx: Context) -> None:
        called.append(asked.id)

    return made


async def test_a_deadline_is_called_though_transactions_have_left_marks_at_the_end(kafka_bootstrap, tmp_path):
    url, called = f"kafka://{kafka_bootstrap}", []
    settings = Settings(
        log=url, store=f"sqlite:///{tmp_path}/{{service}}.db", registry=str(tmp_path / "schemas"), create_topics=True
    )
    topics = [event.contract.topics[0] for event in (Asked, Answered)]
    async with open_log(url) as log:
        await log.create_topics([Topic(name=name, partitions=PARTITIONS) for name in topics])
        producer = log.producer(transactional_id=f"t-{uuid4()}")
        marked = [
            NewRecord(topic, b"k", None, [("ce_type", b"Else")], partition=number)
            for topic in topics
            for number in range(PARTITIONS)
        ]
        asking = service(called, f"asking-{RUN}")
        async with running([asking], settings, log=log) as instances, connect(settings, log=log) as bus:
            await bus.publish(Asked(id="expires"))
            await bus.publish(Asked(id="answered"), correlation_id="other")
            await bus.publish(Answered(id="answered"), correlation_id="other")
            await producer.append_atomically(marked)
            partitions = [TopicPartition(name, number) for name in topics for number in range(PARTITIONS)]
            await eventually(lambda: called == ["expires"], lambda: called)
            store = instances[asking.name]._store

            async def all_read() -> bool:
                return await store.watermarks(partitions) == await log.end_offsets(partitions)

            await eventually(all_read, "the watermarks follow the ends")
            await bus.publish(Asked(id="too"))
            await eventually(lambda: called == ["expires", "too"], lambda: called)
            await producer.close()
    assert called == ["expires", "too"]
