"""The consumer's thread over a client that behaves as told: what no server can be made to do at a given moment."""

import asyncio
import threading

import confluent_kafka as ck
import pytest

from choreo.errors import LogUnavailableError, NotOwnerError
from choreo.log.kafka.consumer import KafkaConsumer
from choreo.log.kafka.owner import Owner
from choreo.log.port import TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Message:
    def __init__(self, place, offset, error=None):
        self._place, self._offset, self._error = place, offset, error

    def error(self):
        return self._error

    def topic(self):
        return self._place.topic

    def partition(self):
        return self._place.partition

    def offset(self):
        return self._offset

    def timestamp(self):
        return 1, 0

    def headers(self):
        return None

    def key(self):
        return None

    def value(self):
        return b"v"


class Client:
    """Owns A at once; hands out one record of it, and in the next `consume` is given B as well."""

    def __init__(self, settings):
        self.member_id = "m"
        self.seeks = []
        self.may_fetch = threading.Event()
        self.closable = threading.Event()
        self.closable.set()

    def subscribe(self, topics, on_assign, on_revoke, on_lost):
        self._on_assign = on_assign
        on_assign(self, [ck.TopicPartition(*A)])

    def list_topics(self, timeout):
        raise ck.KafkaException(ck.KafkaError(ck.KafkaError._TRANSPORT))

    def poll(self, timeout):
        if self.may_fetch.wait(timeout):
            self.may_fetch.clear()
            return Message(A, 0)
        return None

    def consume(self, count, timeout):
        self._on_assign(self, [ck.TopicPartition(*B)])
        return []

    def incremental_assign(self, partitions):
        pass

    def commit(self, offsets, asynchronous):
        pass

    def pause(self, partitions):
        pass

    resume = pause

    def seek(self, partition):
        self.seeks.append((partition.topic, partition.partition, partition.offset))

    def consumer_group_metadata(self):
        return "metadata"

    def memberid(self):
        return self.member_id

    def close(self):
        self.closable.wait(60)


@pytest.fixture
async def owned(monkeypatch):
    """A consumer over such a client, and what its listener does when B comes."""
    monkeypatch.setattr(ck, "Consumer", Client)
    doing, told = [], asyncio.Event()

    class Listener:
        async def assigned(self, partitions):
            if B in partitions:
                await doing[0]()
                told.set()
            return {}

        async def revoked(self, partitions):
            pass

    owner = Owner({"group.id": "g", "client.id": "g"}, ["t"], Listener(), "nobody", None, member=True)
    consumer = KafkaConsumer(owner, "g")

    async def run(action):
        doing.append(action)
        async with asyncio.timeout(10):
            while A not in consumer.assignment:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)
            owner.client.may_fetch.set()
            await told.wait()
            return [record.offset for record in await consumer.poll(10, 0.05)]

    yield consumer, run
    await consumer.close()


async def test_a_record_fetched_before_a_seek_inside_a_rebalance_is_dropped(owned):
    consumer, run = owned
    assert await run(lambda: consumer.seek(A, 7)) == []


async def test_a_record_fetched_before_a_pause_inside_a_rebalance_waits_for_resume(owned):
    consumer, run = owned
    assert await run(lambda: consumer.pause([A])) == []
    await consumer.resume([A])
    assert [record.offset for record in await consumer.poll(10, 5)] == [0]


async def test_a_transaction_is_for_owned_partitions_only(owned):
    consumer, run = owned

    async def take_b():
        assert await consumer.group_metadata([A]) == "metadata"
        with pytest.raises(NotOwnerError, match="anew"):
            await consumer.group_metadata([A, B])

    assert await run(take_b) == [0]
    while consumer._owner.partitions.taking:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.001)
    assert await consumer.group_metadata([A, B]) == "metadata"
    with pytest.raises(NotOwnerError, match="t-2"):
        await consumer.group_metadata([A, TopicPartition("t", 2)])


async def test_an_expelled_member_that_has_not_heard_of_it_gets_no_transaction(owned):
    """Kafka checks no commit that names no member."""
    consumer, run = owned

    async def nothing(): ...

    await run(nothing)
    consumer._owner.client.member_id = None
    with pytest.raises(NotOwnerError, match="anew"):
        await consumer.group_metadata([A])


async def test_closing_a_client_that_hangs_is_bounded(owned, monkeypatch):
    consumer, _ = owned
    monkeypatch.setattr("choreo.log.kafka.consumer._CLOSE_WAIT", 0.05)
    consumer._owner.client.closable.clear()
    async with asyncio.timeout(10):
        await consumer.close()
    assert not consumer.ended
    consumer._owner.client.closable.set()


async def test_a_member_that_its_group_leaves_out_for_long_begins_again_with_a_new_client(monkeypatch):
    made = []

    class Deaf(Client):
        """As one that has lost its coordinator for good; the second one is well."""

        def subscribe(self, topics, on_assign, on_revoke, on_lost):
            made.append(self)
            if len(made) == 2:
                super().subscribe(topics, on_assign, on_revoke, on_lost)

    monkeypatch.setattr(ck, "Consumer", Deaf)
    monkeypatch.setattr("choreo.log.kafka.patience.LEFT_OUT", 0.05)
    owner = Owner(
        {"group.id": "g", "client.id": "g", "session.timeout.ms": 1}, ["t"], None, "nobody", None, member=True
    )
    consumer = KafkaConsumer(owner, "g")
    committed = asyncio.ensure_future(
        owner.call(lambda future: owner.commits.begin(made[0], [], future, at_once=False))
    )
    async with asyncio.timeout(10):
        while not consumer.joined:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.001)
    assert owner.client is made[1]
    assert consumer.assignment == {A}
    with pytest.raises(LogUnavailableError):
        await committed
    await consumer.close()
    assert len(made) == 2


def end(place, offset):
    return Message(place, offset, ck.KafkaError(ck.KafkaError._PARTITION_EOF))


async def take_in(owner, messages, *, start=None, moved=()):
    """As if they had come with the next poll, B were to begin at `start`, and some partitions had gone meanwhile."""

    def take(future):
        if start is not None:
            owner.partitions.starts = {B: start}
        owner.partitions.moved.update(moved)
        owner._take_in(messages)
        future.set_result(None)

    while owner.partitions.taking:  # noqa: ASYNC110 - nothing tells when
        await asyncio.sleep(0.001)
    await owner.call(take)


@pytest.mark.parametrize("together", [True, False])
async def test_an_end_that_comes_with_records_that_are_read_once_more_is_not_believed(owned, together):
    """The store's watermark would jump over them."""
    consumer, run = owned
    owner = consumer._owner
    came = [Message(B, 101), Message(B, 102), end(B, 103)]

    async def nothing(): ...

    await run(nothing)
    await take_in(owner, came if together else came[-1:], start=100)
    assert owner.client.seeks == [(*B, 100)]
    assert consumer.ends == {}
    assert await consumer.poll(10, 0.01) == []
    await take_in(owner, came)
    assert consumer.ends == {}, "the records before it are not taken yet"
    assert [record.offset for record in await consumer.poll(10, 1)] == [101, 102]
    assert consumer.ends == {B: 103}


async def test_an_end_of_a_partition_that_goes_meanwhile_is_not_believed(owned):
    consumer, run = owned
    owner = consumer._owner

    async def nothing(): ...

    await run(nothing)
    await take_in(owner, [Message(B, 100), end(B, 101)], moved=[B])
    assert consumer.ends == {}
