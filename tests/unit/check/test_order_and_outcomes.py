"""C11 to C16 beyond their examples."""

import pytest

from tests.unit.check.flows import EXAMPLES, changed, findings


def said(source, code):
    return [(finding.severity, finding.handler, finding.about) for finding in findings(source, code)]


BY_HAND = """
event Placed on orders
event Reserved, Released on stock
failure Declined on payments
stock, payments = Service("stock"), Service("payments")

@payments.on(Placed)
async def charge(placed: Placed) -> Declined | None: ...

@stock.on(Placed)
async def reserve(placed: Placed) -> Reserved: ...

@stock.on(Declined)
async def release(declined: Declined) -> Released | None: ...
"""


def test_a_failure_that_may_overtake_what_it_calls_back():
    assert said(BY_HAND, "C11") == [("warning", "stock.release", ("stock.reserve",))]
    assert findings(BY_HAND, "C11")[0].paths == (("Placed",), ("Placed", "payments.charge", "Declined"))


@pytest.mark.parametrize(
    "edits",
    [
        [("failure Declined on payments", "failure Declined on orders")],
        [
            ("@stock.on(Declined)", "@stock.compensates(reserve, on=(Declined,))"),
            ("release(declined:", "release(reserved: Reserved, declined:"),
        ],
        [("-> Reserved: ...", "-> None: ...")],
        [("@payments.on(Placed)", "@payments.on(Reserved)"), ("charge(placed: Placed)", "charge(reserved: Reserved)")],
    ],
    ids=["one topic and key", "a compensation", "nothing goes on", "the failure comes of the step"],
)
def test_what_keeps_a_failure_from_overtaking(edits):
    assert said(changed(BY_HAND, *edits), "C11") == []


def test_a_step_that_may_emit_nothing_may_know_of_the_failure():
    assert said(changed(BY_HAND, ("-> Reserved: ...", "-> Reserved | None: ...")), "C11") == [
        ("info", "stock.release", ("stock.reserve",))
    ]


@pytest.mark.parametrize(
    ("packed", "paid", "wrong"),
    [
        ("status = 'packed' WHERE order_id = ?", "status = 'paid' WHERE order_id = ?", True),
        ("status = ? WHERE order_id = ?", "status = ? WHERE order_id = ?", True),
        ("status = 'new' WHERE order_id = ?", "status = 'new' WHERE order_id = ?", False),
        ("packed = 1 WHERE order_id = ?", "paid = 1 WHERE order_id = ?", False),
        ("steps = steps + 1 WHERE order_id = ?", "steps = steps + 2 WHERE order_id = ?", False),
    ],
)
def test_columns_that_two_handlers_overwrite(packed, paid, wrong):
    source = changed(
        EXAMPLES["C12"],
        ("status = 'packed' WHERE order_id = ?", packed),
        ("status = 'paid' WHERE order_id = ?", paid),
    )
    assert bool(said(source, "C12")) is wrong


def test_events_of_one_topic_and_key_have_an_order():
    source = changed(
        EXAMPLES["C12"],
        ('Packed(Event, topic="stock"', 'Packed(Event, topic="done"'),
        ('Paid(Event, topic="payments"', 'Paid(Event, topic="done"'),
    )
    assert said(source, "C12") == []


def test_events_of_which_one_comes_of_handling_the_other_have_an_order():
    source = changed(
        EXAMPLES["C12"],
        (
            "@payments.on(OrderPlaced)\nasync def charge(order: OrderPlaced)",
            "@payments.on(PackSeen)\nasync def charge(seen: PackSeen)",
        ),
        (
            "async def packed(event: Packed, ctx: Context) -> None:",
            "async def packed(event: Packed, ctx: Context) -> PackSeen:",
        ),
        ("class Paid(", 'class PackSeen(Event, topic="seen", key="order_id"):\n    order_id: str\n\nclass Paid('),
    )
    assert said(source, "C12") == []


JOIN = """
event Placed on orders
event Charged on payments
event Reserved on stock
payments, stock, shipping = map(Service, ("payments", "stock", "shipping"))

@payments.on(Placed)
async def charge(placed: Placed) -> Charged: ...

@stock.on(Placed)
async def reserve(placed: Placed) -> Reserved: ...

@shipping.join(Charged, Reserved)
async def ship(charged: Charged, reserved: Reserved) -> None: ...
"""


def test_a_join_whose_events_always_come_needs_no_end():
    assert findings(JOIN) == []


@pytest.mark.parametrize(
    "edits",
    [
        [("-> Charged: ...", "-> Charged | None: ...")],
        [
            ("@payments.on(Placed)", "@payments.on(Paid)"),
            ("charge(placed: Placed)", "charge(paid: Paid)"),
            ("event Placed on", "event Placed, Paid on"),
        ],
        [("@payments.on(Placed)", "@payments.deadline(Placed, within='1h', unless=(Reserved,))")],
    ],
    ids=["may emit nothing", "waits for the outside", "may be stopped"],
)
def test_a_join_of_which_one_event_may_stay_away(edits):
    (finding,) = findings(changed(JOIN, *edits), "C13")
    assert (finding.handler, set(finding.about)) == ("shipping.ship", {"Charged", "Reserved"})


@pytest.mark.parametrize(
    "end",
    [
        ("@shipping.join(Charged, Reserved)", "@shipping.join(Charged, Reserved, unless=(Gone,))"),
        (
            "@shipping.join",
            "@stock.deadline(Placed, within='1h')\nasync def late(placed: Placed) -> None: ...\n\n@shipping.join",
        ),
        (
            "@shipping.join",
            "@stock.deadline(Reserved, within='1h')\nasync def late(reserved: Reserved) -> None: ...\n\n@shipping.join",
        ),
        (
            "@shipping.join(Charged, Reserved)\nasync def ship(charged: Charged, reserved: Reserved)",
            "@shipping.join(Charged, Reserved, need=1)\nasync def ship(charged: Charged | None, reserved: Reserved | None)",
        ),
    ],
    ids=["unless", "a deadline from the start", "a deadline on what has come", "one suffices"],
)
def test_a_wait_with_an_end(end):
    source = changed(
        JOIN,
        ("-> Charged: ...", "-> Charged | Gone: ..."),
        ("event Charged on payments", "event Charged on payments\nfailure Gone on payments"),
    )
    assert said(source, "C13") == [("warning", "shipping.ship", ("Reserved", "Charged"))]
    assert said(changed(source, end), "C13") == []


GATHER = """
event Arrived on files
event Split, Chunk on chunks
event Loaded on loads
failure Malformed on files ends failed
event Done on files ends completed
splitter, loader = Service("splitter"), Service("loader")

@splitter.on(Arrived)
async def split(arrived: Arrived) -> tuple[Split, Chunk] | Malformed: ...

@loader.on(Chunk)
async def load(chunk: Chunk) -> Loaded: ...

@loader.join(Split, Loaded, count=lambda split: 3)
async def finish(split: Split, loaded: list[Loaded]) -> Done: ...
"""


def test_chunks_that_are_emitted_together_all_come():
    assert findings(GATHER) == []


def test_chunks_that_may_fail_keep_the_join_waiting():
    source = changed(
        GATHER,
        ("-> Loaded: ...", "-> Loaded | Broken: ..."),
        ("event Loaded on loads", "event Loaded on loads\nfailure Broken on loads"),
    )
    assert said(source, "C13") == [("warning", "loader.finish", ("Split", "Loaded"))]


ENDS = """
event Placed on orders
event Paid on payments
event Done on orders ends completed
failure Declined on payments
failure Cancelled on orders ends failed
orders, payments, shipping = map(Service, ("orders", "payments", "shipping"))

@payments.on(Placed)
async def charge(placed: Placed) -> Paid | Declined: ...

@orders.on(Paid)
async def close(paid: Paid) -> Done | None: ...

@orders.on(Declined)
async def cancel(declined: Declined) -> Cancelled | None: ...
"""
EXPIRE = "\n@orders.deadline(Placed, within='1h', unless=(Done, Cancelled))\nasync def expire(placed: Placed) -> Cancelled: ...\n"


def test_one_service_that_ends_sagas_and_looks_whether_they_have_ended():
    assert findings(ENDS + EXPIRE) == []


def test_a_handler_that_ends_a_saga_without_looking():
    blind = changed(ENDS + EXPIRE, ("-> Done | None", "-> Done"))
    found = findings(blind, "C14")
    assert [(f.handler, f.about) for f in found] == [
        ("orders.close", ("Done", "Cancelled", "orders.close", "orders.expire"))
    ]
    assert found[0].message == "orders.close emits Done also when Cancelled has ended the saga already"


def test_two_services_that_end_sagas():
    elsewhere = changed(ENDS + EXPIRE, ("@orders.on(Paid)", "@shipping.on(Paid)"))
    assert [f.about for f in findings(elsewhere, "C14")] == [("Done", "Cancelled", "shipping.close", "orders.expire")]
    without = changed(ENDS, ("@orders.on(Paid)", "@shipping.on(Paid)"))
    assert findings(without, "C14") == [], "paid and declined exclude each other"


def test_the_service_that_decided_before_the_ways_part_decides_nothing():
    source = changed(
        ENDS + EXPIRE,
        ("@orders.on(Paid)", "@shipping.on(Paid)"),
        ("Service, (", "Service, ("),
        ("@payments.on(Placed)", "@orders.on(Opened)"),
        ("charge(placed: Placed)", "charge(opened: Opened)"),
        ("event Placed on orders", "event Placed, Opened on orders"),
    )
    source += "\n@payments.on(Placed)\nasync def open_order(placed: Placed) -> Opened | None: ..."
    assert [f.about[2:] for f in findings(source, "C14")] == []
    other = changed(source, ("@orders.on(Opened)", "@payments.on(Opened)"))
    assert [f.about[2:] for f in findings(other, "C14")] == [("shipping.close", "orders.expire")]


def test_a_deadline_that_the_good_end_does_not_stop():
    source = changed(ENDS + EXPIRE, ("unless=(Done, Cancelled)", "unless=(Cancelled,)"))
    assert ("warning", "orders.expire", ("Done", "Cancelled")) in said(source, "C14")
    assert said(changed(source, ("-> Cancelled: ...", "-> Cancelled | None: ...")), "C14") == []
    assert said(changed(ENDS + EXPIRE, ("unless=(Done, Cancelled)", "unless=(Paid, Cancelled)")), "C14") == [
        ("warning", "orders.expire", ("Done", "Cancelled", "orders.close", "orders.expire"))
    ], "it is stopped before the good end, but it does not know of a late one"


def test_a_failure_of_another_service_that_undoes_steps_beside_the_good_end():
    source = """
event Placed on orders
event Charged on payments
failure Missing on stock
event Confirmed on orders ends completed
orders, payments, stock = map(Service, ("orders", "payments", "stock"))

@payments.on(Placed)
async def charge(placed: Placed) -> Charged: ...

@payments.compensates(charge, on=(Missing,))
async def refund(charged: Charged, failure: Missing) -> None: ...

@stock.on(Placed)
async def reserve(placed: Placed) -> Missing | None: ...

@orders.on(Charged)
async def confirm(charged: Charged) -> Confirmed: ...
"""
    assert said(source, "C14") == [("warning", "orders.confirm", ("Confirmed", "Missing", "stock.reserve"))]
    joined = changed(
        source,
        ("-> Missing | None", "-> Missing | Reserved"),
        ("event Charged on", "event Reserved, Charged on"),
        (
            "@orders.on(Charged)\nasync def confirm(charged: Charged)",
            "@orders.join(Charged, Reserved, unless=(Missing,))\nasync def confirm(charged: Charged, reserved: Reserved)",
        ),
    )
    assert findings(joined) == []


KEYED = """
class Tenant(Event, topic="tenants", key="tenant_id"):
    tenant_id: str
    account_id: str

class Database(Event, topic="databases", key="account_id"):
    account_id: str

mails = Service("mails"STORE)

@mails.join(Tenant, Database)
async def welcome(tenant: Tenant, database: Database) -> None: ...

@mails.deadline(Tenant, within="1h")
async def late(tenant: Tenant) -> None: ...
"""


@pytest.mark.parametrize(
    ("store", "join", "wrong"),
    [
        ("", "", True),
        (", store='sqlite:///mails.db'", "", True),
        (", store='postgresql://db/mails'", "", False),
        ("", ", by='account_id'", False),
    ],
)
def test_a_join_of_events_with_different_keys(store, join, wrong):
    source = KEYED.replace("STORE", store).replace("join(Tenant, Database)", f"join(Tenant, Database{join})")
    assert bool(said(source, "C15")) is wrong


def test_different_keys_in_one_topic_matter_to_who_reads_both():
    alone = changed(
        EXAMPLES["C15"],
        ("@orders.on(CustomerBlocked)", "@customers.on(CustomerBlocked)"),
        ("orders = Service", "customers = Service('customers')\norders = Service"),
    )
    assert said(alone, "C15") == []


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("await ctx.state.gateway.charge(order.order_id)", True),
        ("await ctx.state.charge(order.order_id)", True),
        ("await ctx.state.gateway.get_balance(order.order_id)", False),
        ("await ctx.state.gateway.charge(order.order_id, key=ctx.event_id)", False),
        ("await ctx.step('charge', ctx.state.gateway.charge, order.order_id)", False),
        ("await ctx.db.execute('INSERT INTO charges VALUES (?)', (order.order_id,))", False),
        ("await httpx2.AsyncClient().post('https://pay')", True),
        ("httpx2.get('https://pay')", False),
        ("await client.post('https://pay')", True),
    ],
)
def test_calls_of_others_that_change_something(call, wrong):
    source = changed(EXAMPLES["C16"], ("await ctx.state.gateway.charge(order.order_id)", call))
    source = "import httpx2\nclient = httpx2.AsyncClient()\n" + source
    assert bool(said(source, "C16")) is wrong
