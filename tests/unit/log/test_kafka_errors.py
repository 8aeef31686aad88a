import pytest
from confluent_kafka import KafkaError, KafkaException

from choreo.errors import LogError, LogUnavailableError, NotOwnerError, UnknownTopicError
from choreo.log.kafka.errors import RebalancingError, as_choreo, explained


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("_TRANSPORT", LogUnavailableError),
        ("_ALL_BROKERS_DOWN", LogUnavailableError),
        ("_MSG_TIMED_OUT", LogUnavailableError),
        ("_TIMED_OUT", LogUnavailableError),
        ("NOT_ENOUGH_REPLICAS", LogUnavailableError),
        ("COORDINATOR_LOAD_IN_PROGRESS", LogUnavailableError),
        ("UNKNOWN", LogUnavailableError),  # not known to be permanent: waiting loses nothing
        ("REBALANCE_IN_PROGRESS", RebalancingError),
        ("UNKNOWN_MEMBER_ID", NotOwnerError),
        ("ILLEGAL_GENERATION", NotOwnerError),
        ("STALE_MEMBER_EPOCH", NotOwnerError),
        ("_FENCED", NotOwnerError),
        ("UNKNOWN_TOPIC_OR_PART", UnknownTopicError),
        ("_UNKNOWN_TOPIC", UnknownTopicError),
        ("TOPIC_AUTHORIZATION_FAILED", LogError),
        ("_AUTHENTICATION", LogError),
        ("INVALID_RECORD", LogError),
        ("UNSUPPORTED_VERSION", LogError),
    ],
)
def test_each_code_has_one_meaning(name, kind):
    assert type(explained(KafkaError(getattr(KafkaError, name)), "append to orders", "user 'svc'")) is kind


def test_a_fatal_error_does_not_pass():
    error = explained(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gap", fatal=True), "append", "user 'svc'")
    assert type(error) is LogError


def test_a_refusal_names_who_what_and_the_remedy():
    error = explained(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), "append to orders", "user 'svc'")
    assert "append to orders" in str(error)
    assert "user 'svc'" in str(error)
    assert "grant it" in str(error)


def test_an_unknown_topic_names_the_remedy():
    error = explained(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "append to orders", "user 'svc'")
    assert "append to orders" in str(error)
    assert "choreo topics create" in str(error)


def test_exceptions_that_are_not_the_clients_stay_as_they_are():
    own = ValueError("a listener's")
    assert as_choreo(own, "consumer", "nobody") is own
    assert isinstance(as_choreo(KafkaException(KafkaError(KafkaError._TRANSPORT)), "x", "y"), LogUnavailableError)
