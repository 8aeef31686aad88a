"""The partitions of a Kafka consumer: where the first record of an ownership has to be."""

from __future__ import annotations

import asyncio

import confluent_kafka as ck
import pytest

from choreo.log.kafka.buffer import Buffer
from choreo.log.kafka.partitions import Partitions
from choreo.log.port import Record, TopicPartition


class Client:
    """What librdkafka was told."""

    def __init__(self):
        self.seeks = []
        self.refusals = 0

    def incremental_assign(self, partitions): ...

    def resume(self, partitions): ...

    def seek(self, partition):
        if self.refusals:
            self.refusals -= 1
            raise ck.KafkaException(ck.KafkaError(ck.KafkaError._STATE))
        self.seeks.append((partition.partition, partition.offset))


def record(partition, offset):
    return Record("orders", partition, offset, 0, b"k", b"v", [])


@pytest.fixture
async def assigned():
    assert asyncio.get_running_loop()
    client = Client()
    partitions = Partitions(None, Buffer(), 1.0, lambda future, limit: None, pytest.fail, None)
    partitions.on_assign(client, [ck.TopicPartition("orders", 0, 5), ck.TopicPartition("orders", 1, 7)])
    return partitions, client


async def test_a_partition_that_begins_beyond_its_start_is_read_once_more_from_there(assigned):
    partitions, client = assigned
    came = [record(0, 9), record(1, 7), record(0, 10)]
    assert partitions.complete(client, came) == [record(1, 7)]
    assert client.seeks == [(0, 5)]
    again = [record(0, 5), record(0, 6)]
    assert partitions.complete(client, again) == again


async def test_a_gap_that_is_there_the_second_time_too_is_one_of_the_log(assigned):
    partitions, client = assigned
    assert partitions.complete(client, [record(0, 9)]) == []
    assert partitions.complete(client, [record(0, 9)]) == [record(0, 9)]
    assert client.seeks == [(0, 5)]


async def test_after_a_seek_the_first_record_may_be_any(assigned):
    partitions, client = assigned
    partitions.begun(list(partitions.starts))
    assert partitions.complete(client, [record(0, 9), record(1, 9)]) == [record(0, 9), record(1, 9)]
    assert client.seeks == []


async def test_where_the_client_refuses_to_go_back_it_is_told_again_at_the_next_record(assigned):
    partitions, client = assigned
    client.refusals = 1
    assert partitions.complete(client, [record(0, 9)]) == []
    assert partitions.complete(client, [record(0, 10)]) == []
    assert client.seeks == [(0, 5)]
    assert partitions.complete(client, [record(0, 5)]) == [record(0, 5)]


END = TopicPartition("orders", 0)


async def test_an_end_before_the_first_record_is_believed_when_it_comes_again(assigned):
    partitions, client = assigned
    assert partitions.ended(client, {END: 9}, ()) == {}, "whether nothing lies between is not known"
    assert client.seeks == [(0, 5)]
    assert partitions.ended(client, {END: 9}, ()) == {END: 9}, "marks of transactions"
    assert client.seeks == [(0, 5)]


async def test_an_end_where_a_partition_is_to_begin_is_believed(assigned):
    partitions, client = assigned
    assert partitions.ended(client, {END: 5}, ()) == {END: 5}
    assert client.seeks == []


async def test_an_end_counts_not_of_a_partition_that_is_read_elsewhere_by_now(assigned):
    partitions, client = assigned
    assert partitions.ended(client, {END: 9}, {("orders", 0)}) == {}
    assert client.seeks == []


async def test_an_end_is_looked_at_again_if_the_client_refuses_to_seek(assigned):
    partitions, client = assigned
    client.refusals = 1
    assert partitions.ended(client, {END: 9}, ()) == {}
    assert partitions.ended(client, {END: 9}, ()) == {}
    assert client.seeks == [(0, 5)]
    assert partitions.ended(client, {END: 9}, ()) == {END: 9}
