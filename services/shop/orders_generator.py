"""Orders to try the shop with: the same seed gives the same orders, good and bad ones mixed."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from services.shop.catalogue import (
    ARTICLES,
    BLOCKED_CARDS,
    COUNTRIES_NOT_SERVED,
    COUNTRIES_SERVED,
    CUSTOMERS,
    SOLD_OUT,
    WITHOUT_POINTS,
)
from services.shop.events import OrderLine, OrderPlaced

BLOCKED_SHARE = 0.05
BULK_SHARE = 0.04  # too much for any card
SOLD_OUT_SHARE = 0.09
NOT_SERVED_SHARE = 0.07
BULK_QUANTITY = 2_000
SMALL_PRICE = Decimal(50)  # cheaper articles are bought up to three at a time

_FOR_SALE = tuple(article for article in ARTICLES if article.sku not in SOLD_OUT)
_NOT_FOR_SALE = tuple(article for article in ARTICLES if article.sku in SOLD_OUT)
_PAYING = tuple(
    customer.customer_id for customer in CUSTOMERS if customer.customer_id not in BLOCKED_CARDS | {WITHOUT_POINTS}
)
_BLOCKED = tuple(sorted(BLOCKED_CARDS))


def orders(seed: int, number: int) -> list[OrderPlaced]:
    """`number` orders drawn from `seed`; a longer list begins with the shorter one."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_order(draw, f"o-{seed}-{place:05}") for place in range(1, number + 1)]


def order_without_points(order_id: str) -> OrderPlaced:
    """An order that is confirmed, and whose points nobody can book."""
    kettle = next(article for article in ARTICLES if article.sku == "kettle")
    line = OrderLine(sku=kettle.sku, quantity=2, unit_price=kettle.price)
    total = line.quantity * line.unit_price
    return OrderPlaced(order_id=order_id, customer_id=WITHOUT_POINTS, lines=(line,), total=total, country="DE")


def _order(draw: Random, order_id: str) -> OrderPlaced:
    lines = _lines(draw)
    return OrderPlaced(
        order_id=order_id,
        customer_id=draw.choice(_BLOCKED if draw.random() < BLOCKED_SHARE else _PAYING),
        lines=lines,
        total=sum((line.quantity * line.unit_price for line in lines), Decimal(0)),
        country=draw.choice(COUNTRIES_NOT_SERVED if draw.random() < NOT_SERVED_SHARE else COUNTRIES_SERVED),
    )


def _lines(draw: Random) -> tuple[OrderLine, ...]:
    """One to three different articles, in quantities that every working card pays, unless it is a bulk order."""
    articles = draw.sample(_FOR_SALE, draw.randint(1, 3))
    if draw.random() < SOLD_OUT_SHARE:
        articles.append(draw.choice(_NOT_FOR_SALE))
    bulk = draw.random() < BULK_SHARE
    return tuple(
        OrderLine(
            sku=article.sku,
            quantity=BULK_QUANTITY if bulk else 1 if article.price > SMALL_PRICE else draw.randint(1, 3),
            unit_price=article.price,
        )
        for article in articles
    )
