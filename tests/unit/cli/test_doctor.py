import pytest

OTHER = """
from choreo import Event, Service

class OrderPlaced(Event, topic="orders", key="order_id"):
    order_id: str

class Copied(Event, topic="copies", key="order_id"):
    order_id: str

copier = Service("copier", store="sqlite:///.choreo/payments.db")

@copier.on(OrderPlaced)
def copy(order: OrderPlaced) -> Copied:
    return Copied(order_id=order.order_id)
"""

WANTED = "dlq.mail, dlq.payments, orders, payments, retry.mail, retry.payments"


def report(ended):
    """(status, detail) by what was looked at."""
    return {row["what"]: (row["status"], row["detail"]) for row in ended.rows[0]}


@pytest.fixture
def other(project):
    (project / "cli_other.py").write_text(OTHER)


def test_all_is_well_before_the_first_start(cli):
    ended = cli("doctor", "cli_shop", "--json")
    found = report(ended)
    assert ended.code == 0
    assert found["log"] == ("ok", "sqlite:///.choreo/log.db answers, 0 topics")
    assert found["topics"] == ("ok", f"{WANTED} will be made at the first start")
    assert found["registry"] == ("ok", "schemas answers")
    assert found["contract orders/OrderPlaced"][0] == "warn"
    assert found["store of mail"] == ("ok", "sqlite:///.choreo/mail.db is made at the first start")


def test_all_is_well_afterwards(cli, project):
    assert cli("schema", "write", "cli_shop").code == 0
    assert cli("topics", "create", "cli_shop", "--partitions", "3").code == 0
    ended = cli("doctor", "cli_shop", "--json")
    found = report(ended)
    assert ended.code == 0
    assert {status for status, _ in found.values()} == {"ok"}
    assert found["topics"][1] == "6 are there, each with 3 partitions"
    assert found["contracts"][1] == "those of 3 event classes agree with the classes"
    assert not (project / ".choreo" / "mail.db").exists(), "looking makes no store"


def test_events_are_left_alone(cli, placed):
    before = cli("topics", "tail", "orders", "--from-beginning", "--json").out
    assert cli("doctor", "cli_shop").code == 0
    assert cli("doctor", "cli_shop").code == 0
    assert cli("topics", "tail", "orders", "--from-beginning", "--json").out == before
    assert cli("topics", "list").out == "orders\t4\t3\n"


def test_without_modules_only_what_is_general_is_looked_at(cli):
    assert set(report(cli("doctor", "--json"))) == {"log", "registry"}


def test_text_is_a_line_each(cli):
    lines = cli("doctor").out.splitlines()
    assert [line.split("\t")[:2] for line in lines][-1] == ["ok", "registry"]
    assert all(len(line.split("\t")) == 4 for line in lines)


def test_secrets_in_addresses_are_not_shown(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_STORE", "sqlite:///.choreo/{service}.db?key=hidden")
    ended = cli("doctor", "cli_shop", "--registry", "http://me:hidden@127.0.0.1:1")
    assert "hidden" not in ended.out + ended.err
    assert "sqlite:///.choreo/mail.db is made at the first start" in ended.out
    assert "http://127.0.0.1:1 gave no answer" in ended.out


def test_missing_topics_fail_where_they_are_not_created(cli, monkeypatch):
    monkeypatch.setenv("CHOREO_CREATE_TOPICS", "false")
    cli("topics", "create", "-t", "orders")
    ended = cli("doctor", "cli_shop", "--json")
    assert ended.code == 1
    assert report(ended)["topics"] == ("fail", f"there is no {WANTED.replace(' orders,', '')}")
    remedies = {row["what"]: row["remedy"] for row in ended.rows[0]}
    assert cli(*remedies["topics"].replace("MODULE", "cli_shop").removeprefix("choreo ").split()).code == 0
    assert report(cli("doctor", "cli_shop", "--json"))["topics"][0] == "ok", "the remedy works"


def test_a_contract_that_drifts_fails_for_who_emits_it(cli, project):
    assert cli("schema", "write", "cli_shop").code == 0
    charged = 'class PaymentCharged(Event, topic="payments", key="order_id"):\n'
    source = (project / "cli_shop.py").read_text().replace(charged, f"{charged}    sum: int = 0\n")
    (project / "cli_newer.py").write_text(source)
    ended = cli("doctor", "cli_newer", "--json")
    status, detail = report(ended)["contract payments/PaymentCharged"]
    assert ended.code == 1
    assert status == "fail"
    assert detail.startswith("sum is ")
    assert "in the class" in detail


def test_a_reader_may_have_its_own_view_of_a_contract(cli, other):
    assert cli("schema", "write", "cli_shop").code == 0
    found = report(cli("doctor", "cli_other", "--json"))
    assert "contract orders/OrderPlaced" not in found
    assert found["contract copies/Copied"][0] == "warn"


def test_a_store_of_another_service_fails(cli, other, spawn, placed):
    process = spawn("run", "cli_shop:payments")
    assert any('"service started"' in line for line in process.stderr)
    process.terminate()
    process.communicate(timeout=30)
    ended = cli("doctor", "cli_other", "cli_shop:payments", "--json")
    found = report(ended)
    assert ended.code == 1
    assert found["store of copier"][0] == "fail"
    assert "belongs to service 'payments'" in found["store of copier"][1]
    assert found["store of payments"] == ("ok", "sqlite:///.choreo/payments.db opens")


def test_what_cannot_be_reached_fails_and_the_rest_is_still_looked_at(cli):
    ended = cli("doctor", "--json", "--registry", "http://127.0.0.1:1", "--log", "sqlite:////proc/none/log.db")
    found = report(ended)
    assert ended.code == 1
    assert found["log"][0] == "fail"
    assert "/proc/none" in found["log"][1]
    assert found["registry"][0] == "fail"
    assert "http://127.0.0.1:1 gave no answer" in found["registry"][1]
