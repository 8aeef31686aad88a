"""`choreo dlq` over an embedded log that holds dead letters of choreo and of another system."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from choreo.log import NewRecord, Topic, open_log
from choreo.log.port import Record
from choreo.runtime.deadletter import Failed, dead_letter
from choreo.runtime.parking import returned
from tests.unit.dlq import samples

LOG = "sqlite:///.choreo/log.db"


def over_the_log(work):
    """Run `work(log)` with the project's log."""

    async def run():
        async with open_log(LOG) as log:
            return await work(log)

    return asyncio.run(run())


def append(*records):
    async def work(log):
        producer = log.producer()
        await producer.append(records)
        await producer.close()

    over_the_log(work)


def lying(topic):
    """The records of a topic, by partition."""

    async def work(log):
        places = (await log.topics())[topic].partitions
        reader, found = log.consumer([topic]), []
        from choreo.log import TopicPartition

        ends = await log.end_offsets([TopicPartition(topic, n) for n in range(places)])
        while len(found) < sum(ends.values()):
            found += await reader.poll(timeout=5)
        await reader.close()
        return sorted(found)

    return over_the_log(work)


def failing(
    record,
    error,
    *,
    handler="charge",
    kind="exhausted",
    at=1_700_000_000_000,
    redrives=0,
    parked=True,
    max_bytes=100_000,
):
    """The dead letter that service `payments` makes of a record."""
    failed = Failed(
        service="payments", handler=handler, stage="handle", kind=kind, error=error, attempts=3,
        first_failed_ms=at, now_ms=at + 500, subject=f"{record.partition}@{record.offset}", redrives=redrives,
        parked=parked,
    )  # fmt: skip
    return dead_letter(record, failed, max_bytes)


@pytest.fixture
def dead(cli, placed):
    """The three orders of `placed` have failed for good; returns their records, by key."""
    orders = {record.key.decode(): record for record in lying("orders")}
    topics = ["dlq.payments", "retry.payments", "dlq.mail", "orders.DLT"]
    over_the_log(lambda log: log.create_topics([Topic(name=name) for name in topics]))
    times = {"o-1": 3_000, "o-2": 1_000, "o-3": 2_000}
    append(*(failing(orders[key], TimeoutError(f"no answer to {key}"), at=at) for key, at in times.items()))
    return orders


def rows(ended):
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def listed(cli, *options):
    return rows(cli("dlq", "list", "--all", "--json", *options))


def id_of(cli, key, state="open"):
    (row,) = listed(cli, "--key", key, "--state", state)
    return row["id"]


def test_compensations_come_first(cli, dead):
    append(failing(dead["o-1"], ConnectionError("away"), handler="refund", kind="compensation", at=5, parked=False))
    assert [(group["handler"], group["kind"]) for group in rows(cli("dlq", "list", "--json"))] == [
        ("refund", "compensation"),
        ("charge", "exhausted"),
    ]


def test_groups_and_single_ones(cli, dead):
    (group,) = rows(cli("dlq", "list", "--json"))
    assert (group["service"], group["handler"], group["exception"]) == ("payments", "charge", "builtins.TimeoutError")
    assert (group["open"], group["parked"], group["message"]) == (3, 3, "no answer to o-1")
    assert (group["first"], group["last"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:00:03.500Z")
    single = listed(cli)
    assert {row["key"] for row in single} == {"o-1", "o-2", "o-3"}
    assert single[0]["type"] == "OrderPlaced"
    line = cli("dlq", "list").out.split("\t")
    assert line[:7] == ["3", "3", "payments", "charge", "exhausted", "builtins.TimeoutError", "no answer to o-1"]


def test_records_that_do_not_say_why_they_are_there_are_counted(cli, dead):
    append(NewRecord("dlq.payments", b"o-1", b"what is this", []))
    assert cli("dlq", "list").err == "1 records do not say why they are there\n"


@pytest.mark.parametrize("rate", ["fast", "0", "-1"])
def test_a_rate_is_a_number_a_second(cli, dead, rate):
    ended = cli("dlq", "redrive", "--service", "payments", "--why", "x", f"--rate={rate}")
    assert (ended.code, lying("retry.payments")) == (2, [])
    assert "--rate" in ended.err


def test_an_empty_log_has_none(cli, placed):
    assert rows(cli("dlq", "list", "--json")) == []
    assert cli("dlq", "list").out == ""


def test_show_has_the_event_the_error_and_the_place(cli, dead):
    page = rows(cli("dlq", "show", id_of(cli, "o-2")[:6], "--json"))
    assert page["data"] == {"order_id": "o-2", "total": 2}
    assert page["original"] == f"orders/{dead['o-2'].partition}@{dead['o-2'].offset}"
    assert (page["message"], page["attempts"], page["parked"]) == ("no answer to o-2", 3, True)
    text = cli("dlq", "show", page["id"]).out
    for part in ('"order_id": "o-2"', "no answer to o-2", page["original"], page["correlation_id"], "history"):
        assert part in text


def test_what_cannot_be_decoded_is_shown_as_bytes_with_the_reason(cli, dead):
    broken = Record("orders", 0, 900, 1, b"bad", b"\0\0\0\0\1garbage\x1b[2J", [])
    append(failing(broken, ValueError("no event")))
    text = cli("dlq", "show", id_of(cli, "bad")).out
    assert "schema 1 is not in the folder schemas" in text
    assert "00 00 00 00 01 67 61 72 62 61 67 65 1b 5b 32 4a" in text


def test_text_of_others_cannot_steer_the_terminal(cli, dead):
    append(failing(dead["o-1"], ValueError("when?"), handler="later", at=10**17))
    evil = Record(
        "orders", 0, 900, 1, b"k\x1b[2J", b"{}", [("ce_type", b"T\x07"), ("content-type", b"application/json")]
    )
    append(failing(evil, ValueError("\x1b]0;owned\x07\n")))
    (letter,) = [row["id"] for row in listed(cli) if row["message"].startswith("\x1b")]
    for command in (["list"], ["list", "--all"], ["show", letter], ["stats"]):
        text = cli("dlq", *command).out
        assert "\x1b" not in text
        assert "\x07" not in text
    assert "\\x1b]0;owned" in cli("dlq", "list").out
    sly = [
        (name, b"\x1b[2J" if name in {"choreo.dlq.id", "__dlq.errors.group"} else value)
        for name, value in samples.CHOREO
    ]
    append(NewRecord("dlq.mail", b"m", b"{}", sly))
    for command in (["list", "--all"], ["show", "\x1b"], ["redrive", "\x1b", "--why", "x"]):
        ended = cli("dlq", *command)
        assert "\x1b" not in ended.out + ended.err
        assert "\\x1b[2J" in ended.out + ended.err


def test_redriving_gives_each_back_to_its_service_oldest_first(cli, dead):
    ended = cli("dlq", "redrive", "--service", "payments", "--why", "gateway is back", "--by", "ada")
    assert (ended.code, ended.out) == (0, "3 redriven\n"), ended.err
    back = lying("retry.payments")
    assert {record.key: (record.value, record.timestamp) for record in back} == {
        record.key: (record.value, record.timestamp) for record in dead.values()
    }
    for record in back:
        original = dead[record.key.decode()]
        told = returned(record)
        assert told.record == original
        assert (told.handler, told.attempt, told.due_ms, told.redrives, told.discard) == ("charge", 0, 0, 1, False)
        headers = dict(record.headers)
        assert (headers["choreo.redrive.by"], headers["choreo.redrive.why"]) == (b"ada", b"gateway is back")
    assert listed(cli) == []
    assert {row["state"] for row in listed(cli, "--state", "any")} == {"redriven"}


def test_redriving_again_passes_over_what_is_done(cli, dead):
    cli("dlq", "redrive", id_of(cli, "o-2"), "--why", "first")
    ended = cli("dlq", "redrive", "--handler", "charge", "--why", "the rest")
    assert ended.out == "2 redriven, 1 resolved before\n"
    assert cli("dlq", "redrive", "--handler", "charge", "--why", "x", "--json").out == (
        '{"resolved":0,"passed_over":3,"failed_again":0,"left":0,"refused":{},"stopped":""}\n'
    )
    assert len(lying("retry.payments")) == 3


def test_one_that_failed_again_comes_back_with_its_count(cli, dead):
    first = id_of(cli, "o-1")
    cli("dlq", "redrive", first, "--why", "try it", "--by", "ada")
    append(failing(dead["o-1"], TimeoutError("still none"), redrives=1))
    (row,) = listed(cli, "--key", "o-1")
    assert (row["redrives"], row["state"], row["message"]) == (1, "open", "still none")
    history = rows(cli("dlq", "show", row["id"], "--json"))["history"]
    assert [event["what"] for event in history] == ["failed", "redriven", "failed again"]
    assert (history[1]["by"], history[1]["why"]) == ("ada", "try it")
    (group,) = rows(cli("dlq", "stats", "--json"))
    assert (group["open"], group["redriven"], group["failed_again"]) == (3, 1, 1)
    cli("dlq", "redrive", row["id"], "--why", "once more")
    assert {returned(record).redrives for record in lying("retry.payments")} == {1, 2}


@pytest.mark.parametrize("command", ["redrive", "discard"])
def test_nothing_is_done_without_a_selection_or_a_reason(cli, dead, command):
    ended = cli("dlq", command, "--why", "because")
    assert ended.code == 2
    assert "no dead letter is selected" in ended.err
    ended = cli("dlq", command, "--service", "payments")
    assert ended.code == 2
    assert "--why" in ended.err
    assert lying("retry.payments") == []


def test_a_user_without_a_name_has_to_say_one(cli, dead, monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert "--by NAME" in cli("dlq", "discard", "--service", "payments", "--why", "x").err
    assert cli("dlq", "discard", "--service", "payments", "--why", "x", "--by", "ada").out == "3 discarded\n"


def test_a_dry_run_only_shows(cli, dead):
    ended = cli("dlq", "redrive", "--service", "payments", "--dry-run", "--json")
    assert {row["key"] for row in rows(ended)} == {"o-1", "o-2", "o-3"}
    assert lying("retry.payments") == []
    assert len(listed(cli)) == 3


def test_discarding_tells_the_service_if_its_key_waits(cli, dead):
    append(failing(Record("orders", 0, 900, 1, b"free", b"x", []), ValueError("unordered"), parked=False))
    assert cli("dlq", "discard", id_of(cli, "o-1"), id_of(cli, "free"), "--why", "a test").out == "2 discarded\n"
    (record,) = lying("retry.payments")
    assert (record.key, returned(record).discard) == (b"o-1", True)
    assert {row["key"]: row["state"] for row in listed(cli, "--state", "any")}["free"] == "discarded"


def test_a_service_without_a_retry_topic_says_so(cli, dead):
    headers = [(name, b"mail" if name == "__dlq.errors.group" else value) for name, value in samples.CHOREO]
    append(NewRecord("dlq.mail", b"m", b"{}", headers))
    ended = cli("dlq", "redrive", "d0d0", "--why", "x")
    assert ended.code == 1
    assert "topic retry.mail does not exist" in ended.err


def test_edited_data_is_checked_shown_and_redriven(cli, dead):
    letter = id_of(cli, "o-2")
    wrong = cli("dlq", "edit", letter, "--set", "total=much", "--why", "x")
    assert (wrong.code, lying("retry.payments")) == (1, [])
    assert "total: Input should be a valid integer" in wrong.err
    dry = cli("dlq", "edit", letter, "--set", "total=20", "--dry-run")
    assert (dry.code, lying("retry.payments")) == (0, [])
    assert dry.err == '-   "total": 2\n+   "total": 20\n'
    assert cli("dlq", "edit", letter, "--set", "total=20", "--why", "a typing error").code == 0
    (record,) = lying("retry.payments")
    told = returned(record)
    assert (told.record.partition, told.record.offset) == dead["o-2"][1:3]
    assert dict(record.headers)["choreo.redrive.edited"] == b"1"
    page = rows(cli("dlq", "show", letter, "--json"))
    assert page["history"][-1]["edited"] is True
    append(NewRecord("orders", b"look", record.value, told.record.headers))
    (seen,) = [row for row in cli("topics", "tail", "orders", "--json").rows if row["key"] == "look"]
    assert seen["data"] == {"order_id": "o-2", "total": 20}


def test_what_cannot_be_decoded_can_be_written_anew(cli, dead):
    headers = [*dead["o-1"].headers]
    append(failing(dead["o-1"]._replace(offset=900, key=b"bad", value=b"garbage", headers=headers), ValueError("x")))
    letter = id_of(cli, "bad")
    Path("whole.json").write_text('{"order_id": "o-9", "total": 9}')
    assert "give all data: --value FILE" in cli("dlq", "edit", letter, "--set", "total=1", "--why", "x").err
    ended = cli("dlq", "edit", letter, "--value", "whole.json", "--why", "it was cut")
    assert ended.code == 0, ended.err
    (record,) = lying("retry.payments")
    assert record.value[:1] == b"\0"
    assert record.value.endswith(b"\x06o-9\x12")


def test_dead_letters_of_another_system_are_shown_and_handled_by_the_service_that_is_named(cli, dead):
    foreign = samples.lying(samples.SPRING)
    append(NewRecord("orders.DLT", foreign.key, foreign.value, foreign.headers))
    (row,) = listed(cli, "--topic", "orders.DLT")
    assert (row["family"], row["service"], row["exception"]) == ("spring", "billing", "com.acme.GatewayTimeout")
    page = rows(cli("dlq", "show", row["id"], "--topic", "orders.DLT", "--json"))
    assert (page["data"], page["trace"]) == ({"id": "o-1"}, samples.JAVA_TRACE)
    refused = cli("dlq", "redrive", row["id"], "--topic", "orders.DLT", "--why", "x")
    assert refused.code == 1
    assert "--service NAME" in refused.err
    done = cli("dlq", "redrive", row["id"], "--topic", "orders.DLT", "--service", "payments", "--why", "x")
    assert done.out == "1 redriven\n", done.err
    (record,) = lying("retry.payments")
    assert returned(record).record == Record("orders", 3, 77, 1_700_000_000_000, *foreign[4:6], samples.EVENT)
    assert listed(cli, "--topic", "orders.DLT") == []
    assert len(lying("orders.DLT")) == 1, "nothing is written into another system's topic"


def test_what_did_not_fit_is_fetched_from_where_the_original_lies(cli, dead):
    big = NewRecord("orders", b"big", b"\0" * 5_000, [("h", b"1")], partition=0)
    append(big)
    (original,) = [record for record in lying("orders") if record.key == b"big"]
    gone = original._replace(key=b"gone", offset=original.offset + 50)
    append(*(failing(record, ValueError("x"), max_bytes=1_000) for record in (original, gone)))
    ended = cli("dlq", "redrive", id_of(cli, "big"), id_of(cli, "gone"), "--why", "x")
    assert ended.code == 1
    assert ended.out == "1 redriven\n"
    assert "and the original at orders/0@" in ended.err
    (record,) = lying("retry.payments")
    assert returned(record).record == original
    assert [row["key"] for row in listed(cli, "--service", "payments") if row["key"] == "gone"] == ["gone"]


def on_a_terminal(*args):
    """The output of a command line that runs on a terminal of 100 columns, in a process of its own."""
    main, side = pty.openpty()
    code = "import sys; from choreo.cli import main; sys.exit(main())"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "TERM": "xterm-256color", "COLUMNS": "100"}
    process = subprocess.Popen([sys.executable, "-c", code, *args], stdout=side, stderr=side, env=env)
    os.close(side)
    chunks = []

    def read():
        while True:
            try:
                chunk = os.read(main, 65_536)
            except OSError:
                return
            if not chunk:
                return
            chunks.append(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait(60) == 0
    reader.join(10)
    os.close(main)
    return b"".join(chunks).decode()


@pytest.mark.parametrize("command", [["list"], ["list", "--all"], ["stats"]], ids=" ".join)
def test_a_terminal_gets_what_fits_into_it(cli, dead, command):
    append(failing(dead["o-1"], ValueError("no"), handler="a_handler_with_a_name_that_is_far_too_long"))
    text = re.sub(r"\x1b\[[\d;]*m", "", on_a_terminal("dlq", *command))
    assert "\x1b" not in text
    assert "handler" in text
    assert max(map(len, text.splitlines())) <= 100
