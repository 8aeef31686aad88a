"""The shop's sample data: who buys and what is for sale. Each service starts its own tables from its own part.

The data is chosen so that an order's outcome follows from the order alone and never from which order came first:
a card is blocked or has a limit per order, accounts are amply filled, an article is sold out or amply stocked.
"""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple


class Customer(NamedTuple):
    """Who buys: the account's first balance, and what the card pays for one order at most (0: blocked)."""

    customer_id: str
    balance: Decimal
    card_limit: Decimal


class Article(NamedTuple):
    """What is for sale: its price, and how many there are at first."""

    sku: str
    price: Decimal
    stock: int


BALANCE = Decimal("10000000.00")
STOCK = 100_000_000
BLOCKED_CARDS = frozenset({"c-13", "c-29"})
WITHOUT_POINTS = "c-41"  # has closed the points account: whoever books points for it cannot, until somebody decides
COUNTRIES_SERVED = ("AT", "BE", "CH", "CZ", "DE", "DK", "ES", "FR", "IT", "NL", "PL", "SE")
COUNTRIES_NOT_SERVED = ("AQ", "BV", "HM")  # Antarctica, Bouvet Island, Heard and McDonald Islands

CUSTOMERS = tuple(
    Customer(
        customer_id=f"c-{number:02}",
        balance=BALANCE,
        card_limit=Decimal(0) if f"c-{number:02}" in BLOCKED_CARDS else Decimal(1000 + 200 * (number % 4)),
    )
    for number in range(1, 42)
)

ARTICLES = tuple(
    Article(sku, Decimal(price), stock)
    for sku, price, stock in (
        ("atlas", "48.00", STOCK),
        ("binoculars", "129.90", STOCK),
        ("candle", "4.95", STOCK),
        ("compass", "24.50", STOCK),
        ("hammock", "59.90", STOCK),
        ("kettle", "34.90", STOCK),
        ("knife", "27.00", STOCK),
        ("lantern", "39.95", STOCK),
        ("matches", "1.20", STOCK),
        ("rope", "18.75", STOCK),
        ("rucksack", "119.00", STOCK),
        ("sextant", "349.00", 0),
        ("stove", "64.90", STOCK),
        ("tent", "289.00", STOCK),
        ("thermos", "29.99", STOCK),
        ("whistle", "3.49", 0),
    )
)
SOLD_OUT = frozenset(article.sku for article in ARTICLES if not article.stock)
