"""Compares what the six services' stores hold with what the model says must come of the orders."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeVar

from services.shop.catalogue import WITHOUT_POINTS
from services.shop.events import OrderPlaced
from services.shop.model import FAILURES, Books, Outcome

Stores = Mapping[str, Any]
"""A connection to each service's store, by the service's name: `sqlite3`'s or `psycopg`'s."""

Events: TypeAlias = "Counter[tuple[str, str]]"
"""How often there was an event, by (order, type)."""

K = TypeVar("K", bound=Hashable)

SERVICES = ("orders", "payments", "inventory", "shipping", "notifications", "loyalty")

_SHOWN = 5


@contextmanager
def open_stores(address: str, services: Sequence[str] = SERVICES) -> Iterator[Stores]:
    """These services' stores at `address` (`sqlite:///folder/{service}.db` or `postgresql://…`), for reading only.

    Raises:
        LookupError: one of them is not there.
    """
    with ExitStack() as stack:
        yield {name: stack.enter_context(closing(_open(address, name))) for name in services}


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
    """How each order has ended; None if in a way that cannot be."""
    known = {("cancelled", outcome.replace(" ", "_")): outcome for outcome in Outcome}
    known[("confirmed", "")] = known.pop(("cancelled", "confirmed"))
    rows = _rows(stores, "orders", "SELECT order_id, status, cause FROM outcomes")
    return {order_id: known.get((status, cause)) for order_id, status, cause in rows}


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
    return [
        *_outcomes(stores, books),
        *_compare("accounts: cents of", dict(_rows(stores, "payments", _BALANCES)), books.balances),
        *_compare("stock: pieces of", dict(_rows(stores, "inventory", _STOCK)), books.stock),
        *_compare("loyalty: points of", dict(_rows(stores, "loyalty", _POINTS)), books.points),
        *(sentence for ledger in LEDGERS for sentence in _ledger(stores, ledger, books)),
        *_notifications(stores, books),
    ]


def audit_letters(found: Mapping[str, int], placed: Iterable[OrderPlaced]) -> list[str]:
    """What is wrong with the dead letters, by service: there is one for each order whose points nobody can book, and no other."""
    expected = {"loyalty": sum(order.customer_id == WITHOUT_POINTS for order in placed)}
    return _compare("dead letters of", found, expected)


class Ledger(NamedTuple):
    """A table with one row for each thing done, and the one for what was undone of it; and the events that tell of these."""

    service: str
    done: str
    undone: str
    columns: str
    events: tuple[str, ...] = ()


LEDGERS = (
    Ledger(
        "payments", "charges", "refunds", "order_id, customer_id, amount_cents", ("PaymentCharged", "PaymentRefunded")
    ),
    Ledger("inventory", "reservations", "releases", "order_id, sku, quantity", ("StockReserved", "StockReleased")),
    Ledger("shipping", "shipments", "recalls", "order_id, country", ("Shipped", "ShipmentCalledBack")),
    Ledger("loyalty", "points", "", "order_id, customer_id, points"),
)

_BALANCES = "SELECT customer_id, balance_cents FROM accounts"
_STOCK = "SELECT sku, available FROM stock"
_POINTS = "SELECT customer_id, points FROM balances"


def _outcomes(stores: Stores, books: Books) -> list[str]:
    found = ended(stores)
    return _cut(
        "orders: outcome",
        (
            f"orders: outcome of {order_id}: {found.get(order_id) or 'none'}, expected {' or '.join(sorted(possible))}"
            for order_id, possible in ({key: frozenset[Outcome]() for key in found} | books.outcomes).items()
            if found.get(order_id) not in possible
        ),
    )


def _ledger(stores: Stores, ledger: Ledger, books: Books) -> Iterator[str]:
    """Nothing is done twice, everything of a cancelled order is undone, and nothing else."""
    done = Counter(_rows(stores, ledger.service, f"SELECT {ledger.columns} FROM {ledger.done}"))
    left, kept = Counter(done), books.kept[ledger.done]
    if ledger.undone:
        left.subtract(_rows(stores, ledger.service, f"SELECT {ledger.columns} FROM {ledger.undone}"))
    without = f" without {ledger.undone}" if ledger.undone else ""
    yield from _compare(f"{ledger.done}{without}: rows of", left, kept)
    surplus = done - (kept + books.undone[ledger.done])
    yield from _compare(f"{ledger.done}: rows too many of", surplus, {})


def happened(stores: Stores, books: Books) -> Events:
    """What customers must have been told of, by what the services' own tables say."""
    found = Counter((order_id, "OrderPlaced") for order_id in books.outcomes)
    for order_id, outcome in ended(stores).items():
        found[order_id, "OrderConfirmed" if outcome is Outcome.CONFIRMED else "OrderCancelled"] += 1
        if outcome is not None and outcome in FAILURES:
            found[order_id, FAILURES[outcome]] += 1
    for ledger in LEDGERS:
        for table, event in zip((ledger.done, ledger.undone), ledger.events, strict=False):
            rows = _rows(stores, ledger.service, f"SELECT DISTINCT order_id FROM {table}")
            found.update((order_id, event) for (order_id,) in rows)
    return found


def told(stores: Stores) -> Events:
    """What customers were told of."""
    return Counter(_rows(stores, "notifications", "SELECT order_id, type_name FROM notifications_sent"))


def _notifications(stores: Stores, books: Books) -> list[str]:
    found = told(stores)
    # A failure that did not decide the outcome may have been, or not: its step may not have started any more.
    second = {key: 1 for key in books.failures if found[key] == 1}
    return _compare("notifications_sent: rows of", found, {**second, **happened(stores, books)})


def _rows(stores: Stores, service: str, sql: str) -> list[Any]:
    rows: list[Any] = stores[service].execute(sql).fetchall()
    return rows


def _compare(what: str, found: Mapping[K, Any], expected: Mapping[K, Any]) -> list[str]:
    """A sentence for each key whose values differ."""
    wrong = (key for key in {**expected, **found} if found.get(key, 0) != expected.get(key, 0))
    return _cut(what, (f"{what} {_words(key)}: {found.get(key, 0)}, expected {expected.get(key, 0)}" for key in wrong))


def _cut(what: str, sentences: Iterable[str]) -> list[str]:
    """The first few of a long list."""
    said = list(sentences)
    return said if len(said) <= _SHOWN else [*said[:_SHOWN], f"{what}: {len(said) - _SHOWN} more are wrong"]


def _words(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
