import pytest

from choreo.log import open_log


def test_the_topics_that_services_need_are_created(cli):
    ended = cli("topics", "create", "cli_shop", "--partitions", "2", "--json")
    assert ended.code == 0, ended.err
    names = ["dlq.mail", "dlq.payments", "orders", "payments", "retry.mail", "retry.payments"]
    assert ended.rows == [[{"topic": name, "state": "created"} for name in names]]
    expected = [{"topic": name, "partitions": 2, "offsets": 0} for name in names]
    assert cli("topics", "list", "--json").rows == [expected]


def test_existing_topics_are_left_as_they_are(cli):
    cli("topics", "create", "-t", "orders", "--partitions", "3")
    ended = cli("topics", "create", "cli_shop", "-t", "extra")
    assert ended.out.splitlines() == [
        "extra\tcreated",
        "dlq.mail\tcreated",
        "dlq.payments\tcreated",
        "orders\texists",
        "payments\tcreated",
        "retry.mail\tcreated",
        "retry.payments\tcreated",
    ]
    assert "orders\t3\t0" in cli("topics", "list").out


async def test_settings_reach_the_log(cli, project):
    import asyncio

    options = ["--set", "retention.ms=1000", "--set", "cleanup.policy=a=b", "--replication", "1"]
    ended = await asyncio.to_thread(cli, "topics", "create", "-t", "short", *options)
    assert ended.code == 0, ended.err
    async with open_log("sqlite:///.choreo/log.db") as log:
        assert (await log.topics())["short"].settings == {"retention.ms": "1000", "cleanup.policy": "a=b"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "no topic is named (name a module with services, or --topic NAME)"),
        (["-t", "orders", "--set", "retention.ms"], "--set takes NAME=VALUE"),
        (["-t", "orders", "--set", "=1"], "--set takes NAME=VALUE"),
        (["-t", "orders", "--partitions", "0"], "Invalid value for '--partitions'"),
        (["orders"], "there is no module 'orders'"),
    ],
)
def test_wrong_usage(cli, args, message):
    ended = cli("topics", "create", *args)
    assert ended.code == 2
    assert message in ended.err
    assert cli("topics", "list").out == ""


def test_offsets_are_counted(cli, placed):
    assert cli("topics", "list").out == "orders\t4\t3\n"


def test_another_log_can_be_named(cli, placed):
    assert cli("topics", "list", "--log", "sqlite:///other.db").out == ""
