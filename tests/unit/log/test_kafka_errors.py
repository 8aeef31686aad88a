import pytest
from confluent_kafka import KafkaError, KafkaException

from choreo.errors import AccessError, LogError, LogUnavailableError, NotOwnerError, UnknownTopicError
from choreo.log.kafka.errors import RebalancingError, as_choreo, explained, plain, remedy_for
from choreo.log.kafka.rights import Right

ORDERS = Right("Write", "topic", "orders")


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
        ("TOPIC_AUTHORIZATION_FAILED", AccessError),
        ("GROUP_AUTHORIZATION_FAILED", AccessError),
        ("_SSL", LogUnavailableError),  # a certificate may be renewed
        ("_AUTHENTICATION", LogError),
        ("INVALID_RECORD", LogError),
        ("UNSUPPORTED_VERSION", LogError),
    ],
)
def test_each_code_has_one_meaning(name, kind):
    assert type(explained(KafkaError(getattr(KafkaError, name)), "append to orders", "User:svc")) is kind


def test_a_fatal_error_does_not_pass():
    error = explained(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "gap", fatal=True), "append", "User:svc")
    assert type(error) is LogError


@pytest.mark.parametrize("code", ["TOPIC_AUTHORIZATION_FAILED", "CLUSTER_AUTHORIZATION_FAILED"])
def test_a_refusal_names_who_lacks_what_and_the_command_that_grants_it(code):
    rights = [Right("Read", "group", "g"), Right("Write", "topic", "my orders")]
    error = explained(KafkaError(getattr(KafkaError, code)), "append", "User:svc", *rights)
    assert str(error) == (
        "append: principal User:svc lacks WRITE on topic my orders (kafka-acls --bootstrap-server BROKER --add "
        "--allow-principal User:svc --operation Write --topic 'my orders')"
    )


def test_a_refusal_that_broke_a_gapless_producer_is_told_as_one():
    words = (
        "ProduceRequest for orders [0] failed: Broker: Topic authorization failed: unable to satisfy gap-less guarantee"
    )
    error = explained(KafkaError(KafkaError._GAPLESS_GUARANTEE, words), "append", "User:svc", ORDERS)
    assert "principal User:svc lacks WRITE on topic orders" in str(error)


def test_a_refusal_of_an_unexpected_kind_is_told_all_the_same():
    error = explained(KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), "append", "User:svc", ORDERS)
    assert "principal User:svc is refused" in str(error)
    assert "kafka-acls" in str(error)


@pytest.mark.parametrize(
    ("line", "reason", "remedy"),
    [
        (
            "[thrd:ssl://h:1/bootstrap]: ssl://h:1/bootstrap: Disconnected: by peer (after 3ms in state APIVERSION_QUERY)",
            "Disconnected: by peer",
            "security.protocol",
        ),
        (
            "ssl://h:1/2: error:0A000086:SSL routines::certificate verify failed, verify that ssl.ca.location (after 1ms in state X)",
            "certificate verify failed",
            "ssl.ca.location",
        ),
        ("Local: Broker transport failure", "Local: Broker transport failure", ""),
    ],
)
def test_a_reason_is_told_without_its_frame_and_with_a_remedy_if_there_is_one(line, reason, remedy):
    assert plain(line) == reason
    assert remedy in remedy_for(reason)
    assert bool(remedy) == bool(remedy_for(reason))


def test_an_unknown_topic_names_the_remedy():
    error = explained(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART), "append to orders", "User:svc")
    assert "append to orders" in str(error)
    assert "choreo topics create" in str(error)


def test_exceptions_that_are_not_the_clients_stay_as_they_are():
    own = ValueError("a listener's")
    assert as_choreo(own, "consumer", "nobody") is own
    assert isinstance(as_choreo(KafkaException(KafkaError(KafkaError._TRANSPORT)), "x", "y"), LogUnavailableError)
