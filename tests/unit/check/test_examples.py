"""Each rule's own example breaks it and nothing else; a small change mends it."""

import pytest

from choreo.check import RULES
from tests.unit.check.flows import EXAMPLES, changed, findings

SHIP = """
@shipping.on(PaymentCharged)
async def ship(paid: PaymentCharged) -> ShipmentRefused | None: ...
"""
MENDED = {
    "C01": [(', name="payments.PaymentCharged"', "")],
    "C02": [
        ("payments = Service", "shipping = Service('shipping')\npayments = Service"),
        ("-> PaymentCharged: ...", f"-> PaymentCharged: ...\n{SHIP}"),
    ],
    "C03": [
        ("@shipping.join(PaymentCharged, PaidByVoucher)", "@shipping.join(PaymentCharged, PaidByVoucher, need=1)"),
        (
            "ship(paid: PaymentCharged, voucher: PaidByVoucher)",
            "ship(paid: PaymentCharged | None, voucher: PaidByVoucher | None)",
        ),
    ],
    "C04": [("-> Asked: ...\n\nclass Begun", "-> Asked | None: ...\n\nclass Begun")],
    "C05": [
        (
            'ChargeWanted(Event, topic="payments", key="order_id"):\n    order_id: str',
            'ChargeWanted(Event, topic="payments", key="order_id"):\n    order_id: str\n    attempt: int',
        )
    ],
    "C06": [
        (
            'PaymentDeclined(Failure, topic="payments", key="order_id")',
            'PaymentDeclined(Failure, topic="payments", key="order_id", ends="failed")',
        )
    ],
    "C07": [
        ("on=(AddressUnknown,)", "on=(AddressUnknown, ShipmentRejected)"),
        ("failure: AddressUnknown", "failure: Failure"),
    ],
    "C08": [
        (
            "async def charge(",
            "async def check(order: OrderPlaced) -> PaymentDeclined | None: ...\n\n@payments.on(OrderPlaced)\nasync def charge(",
        ),
        ("-> PaymentCharged | PaymentDeclined:", "-> PaymentCharged:"),
    ],
    "C09": [("-> Shipped | ShipmentRejected", "-> Shipped")],
    "C10": [("attempts=1", "attempts=2")],
    "C11": [('PaymentDeclined(Failure, topic="payments"', 'PaymentDeclined(Failure, topic="orders"')],
    "C12": [("SET status = 'paid' WHERE order_id = ?", "SET status = 'paid' WHERE order_id = ? AND status = 'packed'")],
    "C13": [("StockReserved)  #", "StockReserved, unless=(PaymentDeclined,))  #")],
    "C14": [
        (
            "@orders.on(OrderPlaced)\nasync def confirm(order: OrderPlaced)",
            "@orders.on(PaymentCharged)\nasync def confirm(paid: PaymentCharged)",
        ),
        ("-> PaymentDeclined | None", "-> PaymentDeclined | PaymentCharged"),
        (
            "orders, payments =",
            'class PaymentCharged(Event, topic="payments", key="order_id"):\n    order_id: str\n\norders, payments =',
        ),
    ],
    "C15": [('CustomerBlocked(Event, topic="orders"', 'CustomerBlocked(Event, topic="customers"')],
    "C16": [("charge(order.order_id)", "charge(order.order_id, idempotency_key=ctx.idempotency_key)")],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_the_example_breaks_its_rule_and_no_other(rule):
    found = findings(rule.example)
    assert [finding.code for finding in found if finding.severity != "info"] == [rule.code]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_small_change_mends_it(rule):
    assert findings(changed(EXAMPLES[rule.code], *MENDED[rule.code]), rule.code) == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_a_finding_says_where_and_what_to_do(rule):
    found = findings(rule.example, rule.code)[0]
    assert found.place.file.startswith("flow_")
    assert found.place.line > 1
    assert found.handler.count(".") == 1
    assert found.message
    assert found.remedy


def test_codes_are_for_ever():
    assert [rule.code for rule in RULES] == [f"C{number:02}" for number in range(1, 17)]
