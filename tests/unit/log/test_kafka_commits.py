from concurrent.futures import Future

import confluent_kafka as ck
import pytest
from confluent_kafka import KafkaError, KafkaException

from choreo.errors import LogUnavailableError, NotOwnerError
from choreo.log.kafka.owner import Commits
from choreo.log.port import TopicPartition

A, B = TopicPartition("t", 0), TopicPartition("t", 1)


class Client:
    """A consumer that remembers commits, and answers those that wait at once."""

    def __init__(self, refuse=None):
        self.asked, self._refuse = [], refuse

    def commit(self, offsets, asynchronous):
        if self._refuse is not None:
            raise KafkaException(self._refuse)
        self.asked.append((offsets, asynchronous))
        return None if asynchronous else offsets


def begun(commits, client, offsets, *, at_once=False):
    future = Future()
    commits.begin(
        client, [ck.TopicPartition(*place, offset) for place, offset in offsets.items()], future, at_once=at_once
    )
    return future


def test_answers_find_their_commit_in_any_order():
    commits, client = Commits("commit", "svc"), Client()
    first, second = begun(commits, client, {A: 1, B: 2}), begun(commits, client, {A: 3})
    commits.answered(None, client.asked[1][0])
    assert (first.done(), second.done()) == (False, True)
    commits.answered(None, list(reversed(client.asked[0][0])))
    assert first.result(0) is None
    assert not commits


def test_the_same_offsets_twice_are_answered_twice():
    commits, client = Commits("commit", "svc"), Client()
    first, second = begun(commits, client, {A: 1}), begun(commits, client, {A: 1})
    commits.answered(None, client.asked[0][0])
    assert (first.done(), second.done()) == (True, False)
    commits.answered(KafkaError(KafkaError._TRANSPORT), client.asked[1][0])
    with pytest.raises(LogUnavailableError):
        second.result(0)


def test_one_refused_partition_fails_the_commit():
    commits, client = Commits("commit", "svc"), Client()
    future = begun(commits, client, {A: 1, B: 2})

    class Answer:
        def __init__(self, asked, error):
            self.topic, self.partition, self.offset, self.error = asked.topic, asked.partition, asked.offset, error

    refused = KafkaError(KafkaError.UNKNOWN_MEMBER_ID)
    commits.answered(None, [Answer(client.asked[0][0][0], None), Answer(client.asked[0][0][1], refused)])
    with pytest.raises(NotOwnerError):
        future.result(0)


def test_inside_a_rebalance_the_answer_is_waited_for():
    commits, client = Commits("commit", "svc"), Client()
    assert begun(commits, client, {A: 1}, at_once=True).done()
    assert client.asked[0][1] is False


def test_the_same_commit_on_its_way_does_not_keep_a_rebalance_waiting():
    commits, client = Commits("commit", "svc"), Client()
    under_way = begun(commits, client, {A: 1})
    assert begun(commits, client, {A: 1}, at_once=True).result(0) is None
    commits.answered(None, client.asked[0][0])
    assert under_way.result(0) is None


def test_what_the_client_refuses_at_once_is_not_waited_for():
    commits = Commits("commit", "svc")
    with pytest.raises(KafkaException):
        begun(commits, Client(KafkaError(KafkaError._WAIT_COORD)), {A: 1})
    assert not commits


def test_an_answer_nobody_waits_for_is_ignored():
    commits = Commits("commit", "svc")
    commits.answered(None, [ck.TopicPartition("t", 0, 1)])
    assert not commits


def test_at_the_end_everybody_is_told():
    commits, client = Commits("commit", "svc"), Client()
    futures = [begun(commits, client, {A: 1}), begun(commits, client, {A: 2})]
    commits.refuse(NotOwnerError("closed"))
    for future in futures:
        with pytest.raises(NotOwnerError):
            future.result(0)
