"""Transactions to try the flow with: the same seed gives the same ones, harmless and suspicious ones mixed."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from services.fraud.events import TransactionMade

CARDS = 500
STOLEN_SHARE, ABROAD_SHARE = 0.04, 0.1
_COUNTRIES = ("AT", "BE", "DE", "ES", "FR", "IT", "NL", "PL", "US")
_DAILY = ("groceries", "groceries", "restaurants", "fuel", "clothes", "electronics")
_STOLEN = ("gambling", "jewellery", "electronics")


def transactions(seed: int, number: int) -> list[TransactionMade]:
    """`number` transactions drawn from `seed`; a longer list begins with the shorter one."""
    draw = Random(seed)  # noqa: S311 - reproducible samples, no secrets
    return [_transaction(draw, f"t-{seed}-{place:06}") for place in range(1, number + 1)]


def _transaction(draw: Random, transaction_id: str) -> TransactionMade:
    card = draw.randrange(CARDS)
    home = _COUNTRIES[card % len(_COUNTRIES)]
    is_stolen = draw.random() < STOLEN_SHARE
    is_abroad = is_stolen or draw.random() < ABROAD_SHARE
    return TransactionMade(
        transaction_id=transaction_id,
        card_id=f"card-{card:03}",
        amount=Decimal(round(draw.lognormvariate(8.0 if is_stolen else 3.5, 0.8) * 100)).scaleb(-2),
        category=draw.choice(_STOLEN if is_stolen else _DAILY),
        country=draw.choice([country for country in _COUNTRIES if country != home]) if is_abroad else home,
        home_country=home,
    )
