"""The whole shop, in one process, on every log."""

from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest
from structlog.testing import capture_logs

from services.shop import notifications
from services.shop.audit import happened, open_stores, told
from services.shop.events import OrderPlaced
from services.shop.model import Books, Outcome, books_of
from services.shop.orders_generator import orders
from tests.services.conftest import Try


async def test_the_same_seed_gives_the_same_outcomes_on_every_log(
    trial: Try, log_url: str, placed: list[OrderPlaced], books: Books
) -> None:
    async with trial(log_url) as shop:
        await shop.place(placed)
        assert (await shop.settle(books)).findings == []
        assert sum((await shop.grown()).values()) == shop.events()
    assert shop.findings(books) == []
    assert sum(instance.stats.dead_letters for instance in shop.instances.values()) == 0


async def test_an_order_published_twice_has_one_effect(
    trial: Try, log_url: str, placed: list[OrderPlaced], books: Books
) -> None:
    async with trial(log_url) as shop:
        twice = await shop.place(placed, duplicates=0.3)
        assert twice > 10
        assert (await shop.settle(books)).findings == []
        assert sum((await shop.grown()).values()) == shop.events() + twice
    assert shop.findings(books) == []
    dropped = {name: instance.stats.duplicates for name, instance in shop.instances.items()}
    assert dropped == {"orders": 2 * twice, "shipping": 0, "loyalty": 0} | dict.fromkeys(
        ("payments", "inventory", "notifications"), twice
    ), "by each handler of it: in `orders`, these are a join and a deadline"


async def test_a_second_trial_on_the_same_log_does_not_see_the_first(trial: Try, log_url: str) -> None:
    first, second = orders(1, 20), orders(2, 20)
    async with trial(log_url) as shop:
        await shop.place(first)
        assert (await shop.settle(books_of(first))).findings == []
    async with trial(log_url) as shop:
        await shop.place(second)
        assert (await shop.settle(books_of(second))).findings == []
        assert set(shop.outcomes()) == {order.order_id for order in second}


@pytest.mark.registry
async def test_the_contracts_may_live_in_a_registry(
    trial: Try, registry_url: str, placed: list[OrderPlaced], books: Books
) -> None:
    async with trial("memory://", registry=registry_url) as shop:
        await shop.place(placed)
        assert (await shop.settle(books)).findings == []
    subjects = json.loads(await asyncio.to_thread(read, f"{registry_url}/subjects"))
    assert {"orders-OrderPlaced", "inventory-StockReserved", "loyalty-PointsEarned"} <= set(subjects)


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - http, our own registry
        content: bytes = answer.read()
    return content


async def test_failing_notifications_hurt_no_order(
    trial: Try, monkeypatch: pytest.MonkeyPatch, placed: list[OrderPlaced], books: Books
) -> None:
    """Every third customer's mail server is down for good."""
    unreachable = {order.order_id for order in placed[::3]}
    write = notifications.message_for

    def failing(event: notifications.Told) -> str:
        if event.order_id in unreachable:
            raise ConnectionRefusedError(f"no mail server answers for {event.order_id}")
        return write(event)

    monkeypatch.setattr(notifications, "message_for", failing)
    topic = {event.contract.type_name: event.contract.topics[0] for event in notifications.notifications.event_classes}
    with capture_logs() as lines:
        async with trial("memory://") as shop:
            await shop.place(placed)
            assert (await shop.settle(books, without="notifications")).findings == []
            letters = (await shop.grown())["dlq.notifications"]
        with open_stores(shop.settings.store) as stores:
            told_of, missing = told(stores), happened(stores, books) - told(stores)
    assert {order for order, _ in told_of} == set(books.outcomes) - unreachable
    # The first of a key is a dead letter, what comes later for it waits behind it.
    certain = {(topic[event], order) for order, event in missing}
    possible = certain | {(topic[event], order) for order, event in books.failures if order in unreachable}
    assert len(certain) <= letters <= len(possible)
    stats = shop.instances["notifications"].stats
    assert (stats.dead_letters, stats.retries) == (letters, 2 * letters)
    assert len([line for line in lines if line["log_level"] == "error"]) == letters, "each has its log line"


async def test_mail_servers_that_come_back_lose_nothing(
    trial: Try, monkeypatch: pytest.MonkeyPatch, placed: list[OrderPlaced], books: Books
) -> None:
    attempts: dict[str, int] = {}
    write = notifications.message_for

    def hesitating(event: notifications.Told) -> str:
        known = f"{event.contract.type_name} {event.order_id}"
        attempts[known] = attempts.get(known, 0) + 1
        if attempts[known] == 1 and isinstance(event, OrderPlaced):
            raise TimeoutError("the mail server is busy")
        return write(event)

    monkeypatch.setattr(notifications, "message_for", hesitating)
    async with trial("memory://") as shop:
        await shop.place(placed)
        assert (await shop.settle(books)).findings == []
    assert all(attempts[f"OrderPlaced {order.order_id}"] == 2 for order in placed)


def test_the_sample_has_every_outcome(books: Books) -> None:
    """Else the tests above would say less than they seem to."""
    assert set.union(*map(set, books.outcomes.values())) == set(Outcome) - {Outcome.EXPIRED}
