"""Compares what the six services' stores hold with what the model says must come of the orders."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from services.shop.model import CAUSES, Books, Outcome

Stores = Mapping[str, sqlite3.Connection]
"""Each service's store by the service's name."""

K = TypeVar("K", bound=Hashable)

SERVICES = ("orders", "payments", "inventory", "shipping", "notifications", "loyalty")

_SHOWN = 5


@contextmanager
def open_stores(address: str) -> Iterator[Stores]:
    """The stores at `address` (`sqlite:///folder/{service}.db`), for reading only.

    Raises:
        sqlite3.OperationalError: one of them is not there.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(_open(address.replace("{service}", name)))) for name in SERVICES}


def _open(address: str) -> sqlite3.Connection:
    path = Path(address.removeprefix("sqlite:///")).absolute()
    return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)


def ended(stores: Stores) -> dict[str, Outcome | None]:
    """How each order that the shop knows has ended; None while it is open or ended in a way that cannot be."""
    causes: dict[str, list[str]] = {}
    for order_id, cause in stores["orders"].execute("SELECT order_id, cause FROM failures ORDER BY cause"):
        causes.setdefault(order_id, []).append(cause)
    outcome_by_causes = {known: outcome for outcome, known in CAUSES.items()}
    found: dict[str, Outcome | None] = {}
    for order_id, status in stores["orders"].execute("SELECT order_id, status FROM orders"):
        outcome = outcome_by_causes.get(tuple(causes.get(order_id, ())))
        is_possible = (status == "confirmed") == (outcome is Outcome.CONFIRMED) and status != "open"
        found[order_id] = outcome if is_possible else None
    return found


def still_open(stores: Stores, books: Books) -> list[str]:
    """The orders that the shop has not ended, or not heard of yet."""
    done = {row[0] for row in stores["orders"].execute("SELECT order_id FROM orders WHERE status <> 'open'")}
    return [order_id for order_id in books.outcomes if order_id not in done]


def findings_now(address: str, books: Books) -> list[str]:
    """What is wrong at this moment; the whole audit only when no order is open."""
    try:
        with open_stores(address) as stores:
            waiting = still_open(stores, books)
            if not waiting:
                return audit(stores, books)
    except sqlite3.OperationalError as error:
        return [f"a store cannot be read: {error}"]
    more = f" and {len(waiting) - _SHOWN} more" if len(waiting) > _SHOWN else ""
    return [f"{len(waiting)} orders are still open: {', '.join(waiting[:_SHOWN])}{more}"]


def audit(stores: Stores, books: Books) -> list[str]:
    """What is wrong, one sentence each; empty if the shop's books are right to the cent and the last piece."""
    outcomes = {order_id: outcome or "none" for order_id, outcome in ended(stores).items()}
    points = Counter[str]()
    for (_, customer_id, earned), times in books.points.items():
        points[customer_id] += earned * times
    return [
        *_compare("orders: outcome of", outcomes, books.outcomes),
        *_compare("accounts: cents of", dict(_rows(stores, "payments", _BALANCES)), books.balances),
        *_compare("stock: pieces of", dict(_rows(stores, "inventory", _STOCK)), books.stock),
        *_compare("loyalty: points of", dict(_rows(stores, "loyalty", _POINTS)), points),
        *(
            sentence
            for (service, table, columns), expected in _ledgers(books).items()
            for sentence in _compare(
                f"{table}: rows of", Counter(_rows(stores, service, f"SELECT {columns} FROM {table}")), expected
            )
        ),
        *(f"parcels: order {row[0]} waits for ever" for row in _rows(stores, "shipping", _WAITING)),
        *(
            f"notifications_sent: event {row[0]} is there {row[1]} times"
            for row in _rows(stores, "notifications", _TWICE)
        ),
    ]


_BALANCES = "SELECT customer_id, balance_cents FROM accounts"
_STOCK = "SELECT sku, available FROM stock"
_POINTS = "SELECT customer_id, points FROM balances"
_WAITING = f"SELECT order_id FROM parcels WHERE status = 'waiting' LIMIT {_SHOWN}"
_TWICE = f"SELECT event_id, count(*) FROM notifications_sent GROUP BY event_id HAVING count(*) > 1 LIMIT {_SHOWN}"


def _ledgers(books: Books) -> dict[tuple[str, str, str], Counter[Any]]:
    """The tables that have one row for each thing done: (service, table, columns), with the rows that must be there."""
    return {
        ("orders", "failures", "order_id, cause"): books.failures,
        ("payments", "charges", "order_id, customer_id, amount_cents"): books.charges,
        ("payments", "refunds", "order_id, customer_id, amount_cents"): books.refunds,
        ("inventory", "reservations", "order_id, sku, quantity"): books.reservations,
        ("inventory", "releases", "order_id, sku, quantity"): books.releases,
        ("shipping", "shipments", "order_id, country"): books.shipments,
        ("notifications", "notifications_sent", "order_id, type_name"): books.notifications,
        ("loyalty", "points", "order_id, customer_id, points"): books.points,
    }


def _rows(stores: Stores, service: str, sql: str) -> list[Any]:
    return stores[service].execute(sql).fetchall()


def _compare(what: str, found: Mapping[K, Any], expected: Mapping[K, Any]) -> list[str]:
    """A sentence for each key whose values differ; a long list is cut."""
    wrong = [key for key in {**expected, **found} if found.get(key, 0) != expected.get(key, 0)]
    said = [f"{what} {_words(key)}: {found.get(key, 0)}, expected {expected.get(key, 0)}" for key in wrong[:_SHOWN]]
    return said if len(wrong) <= _SHOWN else [*said, f"{what}: {len(wrong) - _SHOWN} more are wrong"]


def _words(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
