"""`choreo topics plan` and `apply`: wishes against what exists, and the least rights."""

import pytest

from choreo import Context, Event, Failure, Retry, Service
from choreo.cli.topic_plan import Step, Wish, compare, rights_of, wishes
from choreo.errors import ConfigurationError
from choreo.log import Topic
from choreo.log.kafka.rights import Right

EXISTING = Topic(name="t", partitions=4, replication=3, settings={"retention.ms": "1000", "cleanup.policy": "delete"})


@pytest.mark.parametrize(
    ("wish", "state", "said"),
    [
        (Wish(), "ok", "4 partitions"),
        (Wish(4, 3, {"retention.ms": "1000"}), "ok", "4 partitions"),
        (Wish(3), "cannot", "it has 4 partitions, 3 wanted: none can be taken away"),
        (Wish(replication=2), "cannot", "it has 3 copies, 2 wanted: kafka-reassign-partitions"),
        (Wish(8), "change", "partitions 4 -> 8 (keys move"),
        (Wish(settings={"retention.ms": "5"}), "change", "retention.ms 1000 -> 5"),
        (Wish(settings={"min.insync.replicas": "2"}), "change", "min.insync.replicas unset -> 2"),
    ],
)
def test_a_wish_is_compared_with_what_exists(wish, state, said):
    step = compare("t", wish, EXISTING)
    assert step.state == state
    assert said in step.detail


def test_only_what_differs_is_changed():
    step = compare("t", Wish(6, 3, {"retention.ms": "1000", "cleanup.policy": "compact"}), EXISTING)
    assert step.wanted == Topic(name="t", partitions=6, settings={"cleanup.policy": "compact"})


def test_what_is_missing_is_created_as_wished_or_as_usual():
    assert compare("t", Wish(12, 3, {"a": "b"}), None) == Step(
        "t",
        "create",
        "12 partitions, replication 3, a=b",
        Topic(name="t", partitions=12, replication=3, settings={"a": "b"}),
    )
    assert compare("t", Wish(), None).wanted == Topic(name="t", partitions=4, replication=-1)


def test_a_files_tables_win_in_their_order_over_what_is_general(tmp_path):
    file = tmp_path / "topics.toml"
    file.write_text(
        """
        ["*"]
        replication = 3
        "min.insync.replicas" = 2
        "unclean.leader.election.enable" = false
        ["orders*"]
        partitions = 12
        ["orders-big"]
        partitions = 48
        """
    )
    found = wishes(["orders", "orders-big", "dlq.mail"], Wish(6, None, {"retention.ms": "1"}), file)
    general = {"retention.ms": "1", "min.insync.replicas": "2", "unclean.leader.election.enable": "false"}
    assert found == {
        "orders": Wish(12, 3, general),
        "orders-big": Wish(48, 3, general),
        "dlq.mail": Wish(6, 3, general),
    }


def test_retries_and_dead_letters_are_kept_for_ever_unless_told_otherwise():
    assert wishes(["dlq.mail"], Wish(), None)["dlq.mail"].settings == {"retention.ms": "-1"}


@pytest.mark.parametrize(
    "text", ["orders = 3", "[orders]\npartitions = 'many'", "[orders]\nreplication = 0", "[", None]
)
def test_a_file_that_is_none_is_named_with_the_shape_it_should_have(tmp_path, text):
    file = tmp_path / "topics.toml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigurationError, match=r"topics\.toml.*partitions = 12"):
        wishes(["t"], Wish(), file)


def test_a_plan_and_what_it_says_after_it_was_applied(cli):
    cli("topics", "create", "-t", "orders")
    planned = cli("topics", "plan", "cli_shop", "--json")
    states = {row["topic"]: row["state"] for row in planned.rows[0]}
    assert states.pop("orders") == "ok"
    assert set(states.values()) == {"create"}
    assert len(cli("topics", "list").out.splitlines()) == 1
    assert cli("topics", "apply", "cli_shop").code == 0
    again = cli("topics", "plan", "cli_shop", "--json")
    assert {row["state"] for row in again.rows[0]} == {"ok"}


def test_what_cannot_be_stops_all_of_it(cli):
    cli("topics", "create", "-t", "orders", "--partitions", "6")
    ended = cli("topics", "apply", "cli_shop", "--partitions", "3")
    assert ended.code == 1
    assert "orders\tcannot\tit has 6 partitions" in ended.out
    assert len(cli("topics", "list").out.splitlines()) == 1


class Asked(Event, topic="asked", key="id"):
    id: str


class Answered(Event, topic="answered", key="id"):
    id: str


class Refused(Failure, topic="refused", key="id"):
    id: str


def declared(**options):
    service = Service("oracle", **options)

    @service.on(Asked, retry=Retry(business={ValueError: lambda event, _: Refused(id=event.id)}))
    async def answer(asked: Asked, ctx: Context) -> Answered | Refused:
        return Answered(id=asked.id)

    return service


def test_the_least_rights_of_a_service_with_a_store():
    assert rights_of(declared()) == [
        Right("Read", "topic", "asked"),
        Right("Read", "topic", "retry.oracle"),
        Right("Write", "topic", "answered"),
        Right("Write", "topic", "dlq.oracle"),
        Right("Write", "topic", "refused"),
        Right("Write", "topic", "retry.oracle"),
        Right("Read", "group", "oracle"),
    ]


def test_the_least_rights_of_a_transactional_service():
    assert rights_of(declared(transactional=True)) == [
        Right("Read", "topic", "asked"),
        Right("Write", "topic", "answered"),
        Right("Write", "topic", "dlq.oracle"),
        Right("Write", "topic", "refused"),
        Right("Read", "group", "oracle"),
        Right("Write", "transactional-id", "oracle-", prefixed=True),
    ]


def test_rights_are_printed_with_the_commands_that_grant_them_and_no_log_is_asked(cli):
    ended = cli("topics", "plan", "cli_shop:mail", "--acls", "User:{service}", "--log", "kafka://127.0.0.1:1")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == (
        "mail\tRead topic payments\tkafka-acls --bootstrap-server 127.0.0.1:1 --add --allow-principal User:mail "
        "--operation Read --topic payments"
    )
