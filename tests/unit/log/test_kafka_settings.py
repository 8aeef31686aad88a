import pytest

from choreo.errors import ConfigurationError
from choreo.log.kafka import KafkaLog
from choreo.log.kafka.settings import for_consumer, for_producer, parse, principal


def test_settings_come_from_the_address_and_the_mapping_which_wins():
    hosts, settings = parse("kafka://a:9092,b:9093?session.timeout.ms=6000&client.id=x", {"client.id": "y"})
    assert hosts == "a:9092,b:9093"
    assert settings == {"session.timeout.ms": "6000", "client.id": "y"}


@pytest.mark.parametrize("url", ["kafka://", "kafka://?client.id=x", "kafka://host:9092/topic"])
def test_an_address_without_a_broker_is_refused(url):
    with pytest.raises(ConfigurationError, match="names no broker"):
        parse(url, {})


def test_a_password_in_the_address_is_refused_and_not_shown():
    with pytest.raises(ConfigurationError) as refused:
        parse("kafka://user:geheim@host:9092", {})
    assert "geheim" not in str(refused.value)
    assert "sasl.password" in str(refused.value)


def test_the_url_shows_no_setting():
    log = KafkaLog.at("kafka://host:9092?sasl.password=geheim", {"ssl.key.password": "geheim"})
    assert log.url == "kafka://host:9092"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("enable.auto.commit", "true"),
        ("isolation.level", "read_uncommitted"),
        ("acks", "1"),
        ("group.id", "mine"),
        ("bootstrap.servers", "other:1"),
        ("partition.assignment.strategy", "range"),
    ],
)
def test_what_the_promises_rest_on_cannot_be_changed(name, value):
    with pytest.raises(ConfigurationError, match=f"client setting {name} cannot be changed"):
        parse("kafka://host:9092", {name: value})


def test_a_kept_setting_may_be_repeated():
    assert parse("kafka://host:9092", {"acks": "all"})[1] == {"acks": "all"}


def test_the_user_may_change_the_profile():
    assert for_consumer("h", {}, "g", "earliest")["queued.min.messages"] == "10000"
    assert for_consumer("h", {"queued.min.messages": "5"}, "g", "earliest")["queued.min.messages"] == "5"
    assert for_producer("h", {"linger.ms": "20"}, None)["linger.ms"] == "20"


def test_each_client_keeps_its_promises():
    consumer = for_consumer("h", {}, "g", "latest")
    assert consumer["enable.auto.commit"] == consumer["enable.auto.offset.store"] == "false"
    assert (consumer["isolation.level"], consumer["auto.offset.reset"]) == ("read_committed", "latest")
    producer = for_producer("h", {}, "tx")
    assert (producer["enable.idempotence"], producer["acks"], producer["transactional.id"]) == ("true", "all", "tx")
    assert producer["partitioner"] == "murmur2_random"


def test_no_client_is_given_what_is_for_the_other_kind():
    assert not {"acks", "enable.idempotence"} & for_consumer("h", {}, "g", "latest").keys()
    assert not {"enable.auto.commit", "isolation.level"} & for_producer("h", {}, None).keys()


def test_the_assignor_is_named_for_the_classic_protocol_only():
    assert for_consumer("h", {}, "g", "earliest")["partition.assignment.strategy"] == "cooperative-sticky"
    assert "partition.assignment.strategy" not in for_consumer("h", {"group.protocol": "consumer"}, "g", "earliest")


def test_errors_name_the_principal():
    assert principal({"security.protocol": "sasl_ssl", "sasl.username": "svc"}) == "User:svc"
    assert principal({}) == "User:ANONYMOUS"
