import asyncio
import json
import signal
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import pytest

from choreo import connect
from choreo.log import NewRecord, open_log


def append(*records):
    """Append records to the project's log as they are."""

    async def run():
        async with open_log("sqlite:///.choreo/log.db") as log:
            producer = log.producer()
            await producer.append(records)
            await producer.close()

    asyncio.run(run())


def go_on_with(saga):
    """Publish a PaymentCharged of this saga."""

    async def run():
        async with connect() as bus:
            await bus.publish(import_module("cli_shop").PaymentCharged(order_id="o-1"), correlation_id=saga)

    asyncio.run(run())


def tail(cli, *options):
    ended = cli("topics", "tail", "--json", *options)
    assert ended.code == 0, ended.err
    return ended.rows


def keys(rows):
    return [row["key"] for row in rows]


@pytest.fixture
def many(cli):
    """30 old records, a millisecond apart, over four partitions, then an event x."""
    cli("topics", "create", "-t", "payments")
    append(*(NewRecord("payments", f"o-{n}".encode(), None, [], timestamp=1_000 + n) for n in range(30)))
    cli("publish", "PaymentCharged", "-m", "cli_shop", "--json", '{"order_id": "x"}')


def test_a_row_has_everything_that_links_an_event(cli, placed):
    go_on_with(placed[0])
    first, last = tail(cli, "--saga", placed[0])
    assert (first["type"], last["type"]) == ("OrderPlaced", "PaymentCharged")
    assert first["correlation_id"] == last["correlation_id"] == first["event_id"] == placed[0]
    assert first["causation_id"] is None
    assert (first["topic"], first["key"], first["offset"]) == ("orders", "o-1", 0)
    assert first["data"] == {"order_id": "o-1", "total": 1}
    assert first["time"].endswith("Z")
    assert first["time"] <= last["time"]


def test_the_last_ones_are_shown_by_time_over_all_partitions(cli, many):
    assert keys(tail(cli, "payments", "-n", "3")) == ["o-28", "o-29", "x"]
    assert len(tail(cli)) == 10
    assert tail(cli, "-n", "0") == []


def test_all_from_the_beginning(cli, many):
    rows = tail(cli, "--from-beginning", "-n", "1")
    assert sorted(keys(rows)) == sorted([f"o-{n}" for n in range(30)] + ["x"])
    for partition in range(4):
        offsets = [row["offset"] for row in rows if row["partition"] == partition]
        assert offsets == list(range(len(offsets)))


def test_since_a_while_ago(cli, many):
    assert keys(tail(cli, "--since", "1h")) == ["x"]


def test_chosen_topics_only(cli, placed, many):
    assert {row["topic"] for row in tail(cli, "orders", "--from-beginning")} == {"orders"}


def test_a_topic_that_is_not_there(cli, placed):
    ended = cli("topics", "tail", "orders", "nothing", "nil")
    assert ended.code == 1
    assert "has no topics nil, nothing" in ended.err


def test_a_log_that_is_not_there_is_not_made(cli):
    for command in (("topics", "tail"), ("topics", "list"), ("dlq", "list"), ("saga", "list", "-m", "cli_shop")):
        ended = cli(*command, "--log", "sqlite:///typo.db")
        assert ended.code == 2
        assert ended.err.startswith("choreo: there is no log sqlite:///typo.db (name another with --log or CHOREO_LOG")
    assert not Path("typo.db").exists()


def test_an_empty_log_says_so(cli):
    append()
    ended = cli("topics", "tail")
    assert ended.code == 1
    assert ended.err == "choreo: the log sqlite:///.choreo/log.db has no topics\n"


def test_wrong_duration(cli, placed):
    ended = cli("topics", "tail", "--since", "yesterday")
    assert ended.code == 1
    assert "'yesterday' is no duration (write 250ms" in ended.err


CLOUD_EVENT = [("ce_specversion", b"1.0"), ("ce_id", b"e-1"), ("ce_type", b"Strange"), ("ce_source", b"/elsewhere")]


def test_what_cannot_be_decoded_is_shown_with_the_reason(cli, placed):
    append(
        NewRecord("orders", b"tombstone", None, [], partition=0),
        NewRecord("orders", b"unknown", b"\0\0\0\0\1data", CLOUD_EVENT, partition=0),
        NewRecord("orders", b"\xff", b"", [], partition=0),
        NewRecord("orders", None, b"garbage", [("ce_id", b"\xff")], partition=0),
        NewRecord("orders", b"json", b'{"a": 1}', [*CLOUD_EVENT, ("content-type", b"application/json")], partition=0),
    )
    rows = [row for row in tail(cli, "--from-beginning") if row["partition"] == 0][-5:]
    assert keys(rows) == ["tombstone", "unknown", "\\xff", None, "json"]
    assert "its value is null, a tombstone" in rows[0]["undecodable"]
    assert "schema 1 is not in the folder schemas" in rows[1]["undecodable"]
    assert (rows[1]["type"], rows[1]["event_id"], rows[1]["source"]) == ("Strange", "e-1", "/elsewhere")
    assert all(row["undecodable"] for row in rows[:4])
    assert rows[4]["data"] == {"a": 1}
    text = cli("topics", "tail", "--from-beginning").out
    assert "  undecodable: schema 1 is not in the folder schemas" in text
    assert "Strange  key unknown  orders/0@" in text


def test_a_dead_letter_says_why_it_is_one(cli, placed):
    cli("topics", "create", "-t", "dlq.mail")
    headers = [*CLOUD_EVENT, ("__dlq.errors.message", b"the gateway said no")]
    append(NewRecord("dlq.mail", b"o-1", b"{}", headers))
    (row,) = tail(cli, "dlq.mail")
    assert row["dead_letter"] == "the gateway said no"
    assert "  dead letter: the gateway said no\n" in cli("topics", "tail", "dlq.mail").out


def test_text_cannot_steer_the_terminal(cli, placed):
    append(NewRecord("orders", b"a\x1b[2Jb\n", b"\0", [("ce_id", b"[red]x"), ("ce_type", b"\x1b]0;t\x07")]))
    text = cli("topics", "tail", "-n", "1").out
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "key a\\x1b[2Jb\\x0a  " in text
    assert "event [red]x" in text


def test_text_has_a_line_for_the_ids_and_one_for_the_data(cli, placed):
    saga = placed[2]
    text = cli("topics", "tail", "-n", "1").out
    assert text.endswith(f'\n  event {saga}  saga {saga}\n  {{"order_id":"o-3","total":3}}\n')


def test_following_goes_on_until_it_is_interrupted(cli, placed, spawn):
    follower = spawn("topics", "tail", "-f", "-n", "1", "--json")
    assert json.loads(follower.stdout.readline())["key"] == "o-3"
    cli("publish", "PaymentCharged", "-m", "cli_shop", "--json", '{"order_id": "late"}')
    cli("publish", "OrderPlaced", "-m", "cli_shop", "--json", '{"order_id": "later", "total": 1}')
    assert json.loads(follower.stdout.readline())["key"] == "later", "topics that came later are not followed"
    follower.send_signal(signal.SIGINT)
    out, err = follower.communicate(timeout=30)
    assert (follower.returncode, out, err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_traceback(cli, placed, spawn):
    append(*(NewRecord("orders", b"k" * 1000, None, []) for _ in range(2000)))
    writer = spawn("topics", "tail", "--from-beginning", "--json")
    assert writer.stdout.readline()
    writer.stdout.close()
    assert "Traceback" not in writer.stderr.read()
    assert writer.wait(timeout=30) == 1


@pytest.mark.kafka
def test_the_same_on_kafka(cli, kafka_bootstrap, monkeypatch):
    monkeypatch.setenv("CHOREO_LOG", f"kafka://{kafka_bootstrap}")
    topic = f"cli-{uuid4().hex}"
    module = f"from choreo import Event\nclass Told(Event, topic={topic!r}, key='k'):\n    k: str\n    n: int"
    Path("cli_told.py").write_text(module)
    assert cli("topics", "create", "-t", topic, "--partitions", "2", "--replication", "1").out == f"{topic}\tcreated\n"
    lines = b"".join(json.dumps({"k": f"k-{n}", "n": n}).encode() + b"\n" for n in range(20))
    published = cli("publish", "Told", "-m", "cli_told", "--file", "-", stdin=lines)
    assert published.code == 0, published.err
    rows = tail(cli, topic, "--from-beginning")
    assert {row["correlation_id"] for row in rows} == set(published.out.split())
    assert sorted(row["data"]["n"] for row in rows) == list(range(20))
    assert len(tail(cli, topic, "-n", "4")) == 4
    assert keys(tail(cli, topic, "--saga", published.out.split()[7])) == ["k-7"]
    assert len(tail(cli, topic, "--since", "1h")) == 20
    assert f"{topic}\t2\t20" in cli("topics", "list").out
