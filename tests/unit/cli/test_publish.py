import io
import json
import os
import sys
import threading

import pytest

from choreo.cli import publish


def events(cli, *options):
    return cli("topics", "tail", "--from-beginning", "--json", *options).rows


def test_one_event_starts_a_saga_whose_id_is_printed(cli):
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--json", '{"order_id": "o-1",\n "total": 5}')
    (row,) = events(cli)
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert ended.out == f"{row['correlation_id']}\n"
    assert row["event_id"] == row["correlation_id"]
    assert (row["type"], row["topic"], row["key"]) == ("OrderPlaced", "orders", "o-1")
    assert row["data"] == {"order_id": "o-1", "total": 5}
    assert row["source"] == "choreo-cli"


def test_an_event_may_go_on_with_a_saga(cli):
    begun = cli("publish", "OrderPlaced", "-m", "cli_shop", "--json", '{"order_id": "o-1", "total": 5}').out.strip()
    told = cli(
        "publish", "PaymentCharged", "-m", "cli_shop", "--correlation-id", begun, "--json", '{"order_id": "o-1"}'
    )
    assert (told.code, told.out) == (0, f"{begun}\n"), told.err
    rows = events(cli)
    assert [row["correlation_id"] for row in rows] == [begun, begun]
    assert len({row["event_id"] for row in rows}) == 2


def test_a_file_publishes_every_line_in_order(cli, project):
    lines = [json.dumps({"order_id": "one key", "total": n}) for n in range(1203)]
    (project / "orders.ndjson").write_text("\n".join(lines) + "\n\n")
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "orders.ndjson")
    assert ended.code == 0, ended.err
    rows = events(cli)
    assert [row["data"]["total"] for row in rows] == list(range(1203))
    assert ended.out.split() == [row["correlation_id"] for row in rows]
    assert len(set(ended.out.split())) == 1203


def test_standard_input_and_modules_from_the_environment(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_MODULES", "cli_shop")
    ended = cli("publish", "OrderPlaced", "--file", "-", stdin=b'{"order_id": "o-1", "total": 1}\n')
    assert ended.code == 0, ended.err
    assert [row["correlation_id"] for row in events(cli)] == ended.out.split()


def test_a_pipe_can_be_read_though_it_is_read_twice(cli, project):
    os.mkfifo(project / "pipe")
    writer = threading.Thread(target=(project / "pipe").write_text, args=['{"order_id": "o-1", "total": 1}\n'])
    writer.start()
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "pipe")
    writer.join()
    assert ended.code == 0, ended.err
    assert [row["key"] for row in events(cli)] == ["o-1"]


BAD = b"""{"order_id": "o-1", "total": 1}
{"order_id": "o-2"}

nonsense
{"order_id": "o-4", "total": "many", "extra": 1}
{"order_id": "o-5", "total": 5}
"""


def test_a_file_with_bad_lines_publishes_nothing_and_names_them(cli):
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "-", stdin=BAD)
    assert ended.code == 1
    assert ended.out == ""
    lines = ended.err.splitlines()
    assert lines[0] == "line 2: total: Field required"
    assert lines[1].startswith("line 4: event: Invalid JSON")
    assert lines[2].startswith("line 5: total: Input should be a valid integer")
    assert "extra: Extra inputs are not permitted" in lines[2]
    assert lines[3] == "choreo: 3 of 5 events are not valid, so nothing is published"
    assert cli("topics", "list").out == ""


def test_bad_lines_can_be_skipped(cli):
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--skip-invalid", "--file", "-", stdin=BAD)
    assert ended.code == 0
    assert len(ended.out.split()) == 2
    assert ended.err.count("line ") == 3
    assert {row["key"] for row in events(cli)} == {"o-1", "o-5"}


def test_of_many_bad_lines_the_first_are_shown(cli):
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "-", stdin=b"{}\n" * 50)
    assert ended.err.count("line ") == 20
    assert "... and 30 more\n" in ended.err


def test_the_ids_printed_are_those_of_the_events_published_when_it_ends_early(cli, monkeypatch):
    monkeypatch.setattr(publish, "_CHUNK", 2)
    lines = [json.dumps({"order_id": f"o-{n}", "total": n if n < 3 else 2**70}) for n in range(5)]
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "-", stdin="\n".join(lines).encode())
    assert ended.code == 1
    assert "event OrderPlaced cannot be written: field total" in ended.err
    assert len(ended.out.split()) == 2
    assert {row["correlation_id"] for row in events(cli)} == set(ended.out.split())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["OrderPlaced"], "no event is given, or two (give either --json"),
        (["OrderPlaced", "--json", "{}", "--file", "-"], "no event is given, or two (give either --json"),
        (["OrderPlacd", "--json", "{}"], "no event class is 'OrderPlacd' (there are: OrderPlaced in cli_shop, "),
        (["OrderPlaced", "--file", "absent.ndjson"], "'absent.ndjson': No such file or directory"),
        (["OrderPlaced", "--file", "."], "'.': Is a directory"),
        (["Refund", "--json", "{}"], "PaymentCharged in cli_shop, PaymentDeclined in cli_shop)"),
    ],
)
def test_wrong_usage(cli, args, message):
    ended = cli("publish", *args, "-m", "cli_shop")
    assert ended.code == 2
    assert message in ended.err


def test_no_module_is_named(cli):
    assert "no module is named" in cli("publish", "OrderPlaced", "--json", "{}").err


def test_two_classes_of_one_type_are_not_guessed_between(cli, project):
    (project / "cli_view.py").write_text(
        "from choreo import Event\nclass View(Event, topic='orders', key='k', name='OrderPlaced'):\n    k: str"
    )
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "-m", "cli_view", "--json", "{}")
    assert ended.code == 2
    assert (
        "several event classes are 'OrderPlaced' (name one module by -m: OrderPlaced in cli_shop, OrderPlaced in cli_view)"
        in ended.err
    )


def test_topics_are_not_created_where_they_must_not_be(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_CREATE_TOPICS", "false")
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--json", '{"order_id": "o-1", "total": 1}')
    assert ended.code == 1
    assert "no topics orders" in ended.err


def test_an_unreachable_registry_is_code_3(cli):
    line = '{"order_id": "o-1", "total": 1}'
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--json", line, "--registry", "http://127.0.0.1:1")
    assert ended.code == 3
    assert ended.out == ""
    assert "the registry http://127.0.0.1:1 gave no answer" in ended.err
    assert events(cli) == []


def test_progress_is_shown_on_a_terminal_only(cli, project, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    (project / "orders.ndjson").write_text('{"order_id": "o-1", "total": 1}\n' * 1001)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    ended = cli("publish", "OrderPlaced", "-m", "cli_shop", "--file", "orders.ndjson")
    assert ended.code == 0
    assert "publishing" in terminal.getvalue()
    assert "100%" in terminal.getvalue()
    assert len(ended.out.split()) == 1001
