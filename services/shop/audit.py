"""Compares what the six services' stores hold with what the model says must come of the orders."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from services.shop.model import CAUSES, Books, Outcome

Stores = Mapping[str, Any]
"""A connection to each service's store, by the service's name: `sqlite3`'s or `psycopg`'s."""

K = TypeVar("K", bound=Hashable)

SERVICES = ("orders", "payments", "inventory", "shipping", "notifications", "loyalty")

_SHOWN = 5


@contextmanager
def open_stores(address: str) -> Iterator[Stores]:
    """The stores at `address` (`sqlite:///folder/{service}.db` or `postgresql://…`), for reading only.

    Raises:
        LookupError: one of them is not there.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(_open(address, name))) for name in SERVICES}


def _open(address: str, service: str) -> Any:
    if not address.startswith("sqlite"):
        import psycopg

        connection = psycopg.connect(address, autocommit=True, options=f"-c search_path={service}")
        connection.read_only = True
        return connection
    path = Path(address.removeprefix("sqlite:///").replace("{service}", service)).absolute()
    try:
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=30)
    except sqlite3.OperationalError as error:
        raise LookupError(f"the store {path} cannot be read: {error}") from error


def ended(stores: Stores) -> dict[str, Outcome | None]:
    """How each order has ended, by what the shop noted of it; None if it noted what cannot be."""
    causes: dict[str, list[str]] = {}
    for order_id, cause in _rows(stores, "orders", "SELECT order_id, cause FROM failures ORDER BY cause"):
        causes.setdefault(order_id, []).append(cause)
    return {
        order_id: _outcome(status, cause, tuple(causes.get(order_id, ())))
        for order_id, status, cause in _rows(stores, "orders", "SELECT order_id, status, cause FROM outcomes")
    }


def _outcome(status: str, cause: str, failures: tuple[str, ...]) -> Outcome | None:
    if (status, cause) == ("cancelled", "expired"):
        return Outcome.EXPIRED
    outcome = next((outcome for outcome, known in CAUSES.items() if known == failures), None)
    is_possible = (status == "confirmed") == (outcome is Outcome.CONFIRMED) and (not failures or cause in failures)
    return outcome if is_possible else None


def still_open(stores: Stores, books: Books) -> list[str]:
    """The orders that the shop has not ended, or not heard of yet."""
    done = {row[0] for row in _rows(stores, "orders", "SELECT order_id FROM outcomes")}
    return [order_id for order_id in books.outcomes if order_id not in done]


def findings_now(address: str, books: Books) -> list[str]:
    """What is wrong at this moment; the whole audit only when no order is open."""
    try:
        with open_stores(address) as stores:
            waiting = still_open(stores, books)
            if not waiting:
                return audit(stores, books)
    except LookupError as error:
        return [str(error)]
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
        *_ledgers(stores, books),
        *(
            f"notifications_sent: event {row[0]} is there {row[1]} times"
            for row in _rows(stores, "notifications", _TWICE)
        ),
    ]


_BALANCES = "SELECT customer_id, balance_cents FROM accounts"
_STOCK = "SELECT sku, available FROM stock"
_POINTS = "SELECT customer_id, points FROM balances"
_TWICE = f"SELECT event_id, count(*) FROM notifications_sent GROUP BY event_id HAVING count(*) > 1 LIMIT {_SHOWN}"


def _ledgers(stores: Stores, books: Books) -> Iterator[str]:
    """Compare the tables that have one row for each thing done; of expired orders, what was done must be undone."""
    expired = {order_id for order_id, outcome in books.outcomes.items() if outcome is Outcome.EXPIRED}
    late: dict[str, Counter[Any]] = {}
    for (service, table, columns), expected in _expected(books).items():
        rows = _rows(stores, service, f"SELECT {columns} FROM {table}")
        yield from _compare(f"{table}: rows of", Counter(row for row in rows if row[0] not in expired), expected)
        late[table] = Counter(row for row in rows if row[0] in expired)
    for done, undone in (("charges", "refunds"), ("reservations", "releases"), ("shipments", "recalls")):
        yield from _compare(f"{undone}: rows of", late[undone], late[done])
        yield from (f"{done}: {_words(row)} is there {times} times" for row, times in late[done].items() if times > 1)
    yield from (f"points: {_words(row)}, though the order expired" for row in late["points"])


def _expected(books: Books) -> dict[tuple[str, str, str], Counter[Any]]:
    """The rows that must be there, by (service, table, columns)."""
    return {
        ("orders", "failures", "order_id, cause"): books.failures,
        ("payments", "charges", "order_id, customer_id, amount_cents"): books.charges,
        ("payments", "refunds", "order_id, customer_id, amount_cents"): books.refunds,
        ("inventory", "reservations", "order_id, sku, quantity"): books.reservations,
        ("inventory", "releases", "order_id, sku, quantity"): books.releases,
        ("shipping", "shipments", "order_id, country"): books.shipments,
        ("shipping", "recalls", "order_id, country"): books.recalls,
        ("notifications", "notifications_sent", "order_id, type_name"): books.notifications,
        ("loyalty", "points", "order_id, customer_id, points"): books.points,
    }


def _rows(stores: Stores, service: str, sql: str) -> list[Any]:
    rows: list[Any] = stores[service].execute(sql).fetchall()
    return rows


def _compare(what: str, found: Mapping[K, Any], expected: Mapping[K, Any]) -> list[str]:
    """A sentence for each key whose values differ; a long list is cut."""
    wrong = [key for key in {**expected, **found} if found.get(key, 0) != expected.get(key, 0)]
    said = [f"{what} {_words(key)}: {found.get(key, 0)}, expected {expected.get(key, 0)}" for key in wrong[:_SHOWN]]
    return said if len(wrong) <= _SHOWN else [*said, f"{what}: {len(wrong) - _SHOWN} more are wrong"]


def _words(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
