"""The shop's pure parts: sample orders, the model's books, and that the audit sees what is wrong."""

from __future__ import annotations

import ast
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

import services.shop
from services.shop import events, model
from services.shop import services as shop_services
from services.shop.audit import audit, ended, open_stores, still_open
from services.shop.catalogue import BALANCE, CUSTOMERS
from services.shop.events import OrderPlaced
from services.shop.model import Outcome, books_of, outcomes_of
from services.shop.orders_generator import orders
from tests.services.interleavings import Delivery, Memory, handle

SHOP = Path(services.shop.__file__).parent


def test_a_seed_means_one_list_of_orders() -> None:
    assert orders(7, 50) == orders(7, 50)
    assert orders(7, 50) == orders(7, 80)[:50]
    assert orders(7, 50) != orders(8, 50)


@pytest.mark.parametrize("seed", range(5))
def test_good_and_bad_orders_are_mixed(seed: int) -> None:
    counts = Counter(books_of(orders(seed, 400)).outcomes.values())
    assert set.union(*map(set, counts)) == set(Outcome) - {Outcome.EXPIRED}
    assert any(len(outcomes) == 2 for outcomes in counts), "both branches fail"
    assert counts[frozenset({Outcome.CONFIRMED})] > 200


def test_a_total_is_the_sum_of_its_lines() -> None:
    for order in orders(3, 200):
        assert order.total == sum(line.quantity * line.unit_price for line in order.lines)


def test_no_outcome_depends_on_other_orders_as_long_as_accounts_and_stock_last() -> None:
    books = books_of(orders(1, 20_000))
    assert min(books.balances[customer.customer_id] for customer in CUSTOMERS) > 0
    assert all(pieces >= 0 for pieces in books.stock.values())
    bulk = Counter[str]()
    for order in orders(1, 20_000):
        bulk.update({line.sku: line.quantity for line in order.lines})
    assert max(bulk.values()) < max(books.stock.values()), "even if nothing were put back"


def test_the_books_of_two_lists_add_up() -> None:
    first, second = orders(4, 60), orders(5, 60)
    together = books_of(first + second)
    for customer in CUSTOMERS:
        spent = [books_of(part).balances[customer.customer_id] - int(BALANCE.scaleb(2)) for part in (first, second)]
        assert together.balances[customer.customer_id] - int(BALANCE.scaleb(2)) == sum(spent)


def test_money_is_exact_in_cents() -> None:
    assert events.to_cents(Decimal("349.10")) == 34_910
    assert events.from_cents(34_910) == Decimal("349.10")


def test_the_model_uses_none_of_the_services_code() -> None:
    """Else it would repeat their mistakes."""
    shared = {"services.shop.catalogue", "services.shop.events", "services.shop.orders_generator"}
    assert {name for name in imports_of(Path(model.__file__)) if name.startswith("services")} <= shared


@pytest.mark.parametrize("service", [service.name for service in shop_services])
def test_a_service_imports_no_other_service(service: str) -> None:
    """They share contracts and nothing else; so `loyalty` could be added without touching one of them."""
    names = imports_of(SHOP / f"{service}.py")
    assert {name for name in names if name.startswith("services")} <= {
        "services.shop.catalogue",
        "services.shop.events",
    }


def test_nobody_knows_loyalty() -> None:
    others = [path for path in SHOP.glob("*.py") if path.stem not in {"loyalty", "__init__", "audit", "model"}]
    assert others
    assert [path.name for path in others if "loyalty" in path.read_text("utf-8").lower()] == []


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    return {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


# --- the audit, on stores filled without a log ---------------------------------------------------------------------


def fill(address: str, placed: list[OrderPlaced]) -> None:
    """Run the services over these orders, one event after the other."""
    connections = {}
    for service in shop_services:
        path = address.removeprefix("sqlite:///").replace("{service}", service.name)
        connections[service.name] = sqlite3.connect(path, isolation_level=None)
        connections[service.name].executescript(service.tables)
        connections[service.name].execute("BEGIN")
    memories: dict[str, Memory] = {service.name: {} for service in shop_services}
    todo = [Delivery(service.name, order) for order in placed for service in shop_services]
    while todo:
        delivery = todo.pop(0)
        service = next(one for one in shop_services if one.name == delivery.service)
        emitted, _ = handle(service, memories[service.name], delivery, connections[service.name])
        todo += [Delivery(one.name, event) for event in emitted for one in shop_services]
    for connection in connections.values():
        connection.execute("COMMIT")
        connection.close()


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    address = f"sqlite:///{tmp_path}/{{service}}.db"
    fill(address, PLACED)
    return address


PLACED = orders(7, 40)


def spoil(address: str, service: str, sql: str) -> None:
    path = address.removeprefix("sqlite:///").replace("{service}", service)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        assert connection.execute(sql).rowcount >= 1


def test_right_books_pass(address: str) -> None:
    with open_stores(address) as stores:
        assert audit(stores, books_of(PLACED)) == []
        found = ended(stores)
        assert {order.order_id for order in PLACED} == set(found)
        assert all(found[order.order_id] in outcomes_of(order) for order in PLACED)
        assert still_open(stores, books_of(PLACED)) == []


def test_an_order_the_shop_never_heard_of_is_open(address: str) -> None:
    with open_stores(address) as stores:
        assert still_open(stores, books_of(orders(7, 41))) == ["o-7-00041"]


ONE_CHARGE = "FROM charges WHERE rowid = (SELECT min(rowid) FROM charges)"


@pytest.mark.parametrize(
    ("service", "sql", "said"),
    [
        (
            "payments",
            "UPDATE accounts SET balance_cents = balance_cents - 1 WHERE customer_id = 'c-05'",
            "accounts: cents of c-05",
        ),
        ("payments", f"INSERT INTO charges SELECT * {ONE_CHARGE}", "charges without refunds: rows of"),
        ("payments", "DELETE FROM refunds", "charges without refunds: rows of"),
        ("payments", "INSERT INTO refunds SELECT * FROM refunds LIMIT 1", "charges without refunds: rows of"),
        ("payments", f"INSERT INTO charges SELECT * {ONE_CHARGE}", "charges: rows too many of"),
        ("inventory", "UPDATE stock SET available = available + 1 WHERE sku = 'tent'", "stock: pieces of tent"),
        ("inventory", "DELETE FROM releases", "reservations without releases: rows of"),
        ("shipping", "INSERT INTO shipments SELECT * FROM shipments LIMIT 1", "shipments without recalls: rows of"),
        ("shipping", "INSERT INTO recalls SELECT * FROM shipments LIMIT 1", "shipments without recalls: rows of"),
        ("orders", "UPDATE outcomes SET status = 'open' WHERE order_id = 'o-7-00001'", "outcome of o-7-00001: none"),
        ("orders", "DELETE FROM outcomes WHERE order_id = 'o-7-00001'", "outcome of o-7-00001: none"),
        ("orders", "UPDATE outcomes SET cause = 'expired' WHERE status = 'cancelled'", ": expired, expected"),
        (
            "notifications",
            "INSERT INTO notifications_sent SELECT * FROM notifications_sent LIMIT 1",
            "notifications_sent: rows of",
        ),
        ("loyalty", "UPDATE balances SET points = points + 1", "loyalty: points of"),
    ],
)
def test_the_audit_sees(address: str, service: str, sql: str, said: str) -> None:
    spoil(address, service, sql)
    with open_stores(address) as stores:
        sentences = audit(stores, books_of(PLACED))
    assert any(said in sentence for sentence in sentences), sentences


LATE = next(order for order in PLACED if outcomes_of(order) == {Outcome.CONFIRMED})
IS_LATE = f"order_id = '{LATE.order_id}'"
CENTS = events.to_cents(LATE.total)


def undo(address: str) -> None:
    """Let a confirmed order have expired: everything it did is undone."""
    spoil(address, "orders", f"UPDATE outcomes SET status = 'cancelled', cause = 'expired' WHERE {IS_LATE}")
    give_back = f"balance_cents = balance_cents + {CENTS} WHERE customer_id = '{LATE.customer_id}'"
    spoil(address, "payments", f"UPDATE accounts SET {give_back}")
    spoil(address, "payments", f"INSERT INTO refunds SELECT * FROM charges WHERE {IS_LATE}")
    for line in LATE.lines:
        spoil(
            address, "inventory", f"UPDATE stock SET available = available + {line.quantity} WHERE sku = '{line.sku}'"
        )
    spoil(address, "inventory", f"INSERT INTO releases SELECT * FROM reservations WHERE {IS_LATE}")
    spoil(address, "shipping", f"INSERT INTO recalls SELECT * FROM shipments WHERE {IS_LATE}")
    spoil(address, "loyalty", f"DELETE FROM points WHERE {IS_LATE}")
    earned = f"points = points - {int(LATE.total) // 10} WHERE customer_id = '{LATE.customer_id}'"
    spoil(address, "loyalty", f"UPDATE balances SET {earned}")
    told = ("OrderCancelled", "PaymentRefunded", "StockReleased", "ShipmentCalledBack")
    values = ", ".join(f"('', '{LATE.order_id}', '{event}', '')" for event in told)
    spoil(address, "notifications", f"INSERT INTO notifications_sent VALUES {values}")
    spoil(address, "notifications", f"DELETE FROM notifications_sent WHERE {IS_LATE} AND type_name = 'OrderConfirmed'")


@pytest.mark.parametrize(
    ("service", "sql", "said"),
    [
        ("", "", ""),
        ("payments", f"DELETE FROM refunds WHERE {IS_LATE}", "charges without refunds: rows of"),
        ("payments", f"INSERT INTO refunds SELECT * FROM refunds WHERE {IS_LATE}", "charges without refunds: rows of"),
        ("shipping", f"DELETE FROM recalls WHERE {IS_LATE}", "shipments without recalls: rows of"),
        ("inventory", f"DELETE FROM reservations WHERE {IS_LATE}", "reservations without releases: rows of"),
        ("loyalty", f"INSERT INTO points VALUES ('{LATE.order_id}', 'c-01', 3)", "points: rows of"),
    ],
)
def test_of_an_expired_order_nothing_may_be_left(address: str, service: str, sql: str, said: str) -> None:
    undo(address)
    if service:
        spoil(address, service, sql)
    with open_stores(address) as stores:
        sentences = audit(stores, books_of(PLACED, {LATE.order_id}))
    assert any(said in sentence for sentence in sentences) if said else sentences == [], sentences


def test_what_was_done_and_undone_twice_is_seen(address: str) -> None:
    one = "SELECT * FROM {0} WHERE order_id = (SELECT min(order_id) FROM refunds)"
    for table in ("charges", "refunds"):
        spoil(address, "payments", f"INSERT INTO {table} {one.format(table)}")
    with open_stores(address) as stores:
        (sentence,) = audit(stores, books_of(PLACED))
    assert sentence.startswith("charges: rows too many of")


def test_a_long_list_is_cut(address: str) -> None:
    spoil(address, "notifications", "DELETE FROM notifications_sent")
    with open_stores(address) as stores:
        sentences = audit(stores, books_of(PLACED))
    assert len(sentences) < 10
    assert "more are wrong" in sentences[-1]
