"""C06 to C10 beyond their examples."""

import pytest

from tests.unit.check.flows import changed, findings

SHOP = """
event Placed on orders
event Confirmed on orders ends completed
failure Cancelled on orders ends failed
event Charged, Refunded on payments
failure Declined on payments
event Reserved, Released on stock
failure Missing on stock
event Shipped on parcels
failure Rejected on parcels
orders, payments, stock, shipping = map(Service, ("orders", "payments", "stock", "shipping"))

@payments.on(Placed)
async def charge(placed: Placed, ctx: Context) -> Charged | Declined:
    await ctx.db.execute("INSERT INTO charges VALUES (?)", (placed.id,))

@payments.compensates(charge, on=(Cancelled,))
async def refund(charged: Charged, failure: Cancelled) -> Refunded: ...

@stock.on(Placed)
async def reserve(placed: Placed) -> Reserved | Missing: ...

@stock.compensates(reserve, on=(Cancelled,))
async def release(reserved: Reserved, failure: Cancelled) -> Released: ...

@shipping.join(Charged, Reserved, unless=(Cancelled,))
async def ship(charged: Charged, reserved: Reserved) -> Shipped | Rejected: ...

@orders.on(Shipped)
async def confirm(shipped: Shipped) -> Confirmed | None: ...

@orders.on(Declined, Missing, Rejected)
async def cancel(failure: Declined | Missing | Rejected) -> Cancelled | None: ...
"""
REFUND = """@payments.compensates(charge, on=(Cancelled,))
async def refund(charged: Charged, failure: Cancelled) -> Refunded: ...
"""


def said(source, code, **options):
    return [(f.severity, f.handler, f.about) for f in findings(source, code, **options)]


def test_the_shop_is_in_order():
    assert findings(SHOP) == []


def test_each_failure_that_is_not_told_leaves_each_effect_that_may_have_happened():
    source = changed(
        SHOP,
        ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined)"),
        ("cancel(failure: Declined | Missing | Rejected)", "cancel(failure: Declined)"),
    )
    assert said(source, "C07") == [
        ("error", "payments.refund", ("payments.charge", "Charged", "Missing")),
        ("error", "payments.refund", ("payments.charge", "Charged", "Rejected")),
        ("error", "stock.release", ("stock.reserve", "Reserved", "Rejected")),
    ], "nothing is reserved when Missing comes"


def test_the_paths_lead_to_the_effect_and_to_the_failure_in_one_saga():
    source = changed(
        SHOP,
        ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined, Missing)"),
        ("cancel(failure: Declined | Missing | Rejected)", "cancel(failure: Declined | Missing)"),
    )
    charge, reserve = (finding.paths for finding in findings(source, "C07"))
    assert charge == (
        ("Placed", "payments.charge", "Charged"),
        ("Placed", "payments.charge", "Charged", "shipping.ship", "Rejected"),
    )
    assert reserve[0] == ("Placed", "stock.reserve", "Reserved")


def test_what_comes_as_an_answer_to_the_failure_is_not_to_be_undone_by_it():
    fallback = """
@payments.on(Missing)
async def apologise(missing: Missing) -> Credited: ...

@payments.compensates(apologise, on=(Cancelled,))
async def take_back(credited: Credited, failure: Cancelled) -> None: ...
"""
    source = changed(
        SHOP,
        ("event Charged,", "event Credited, Charged,"),
        ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined, Rejected)"),
        ("Declined | Missing | Rejected)", "Declined | Rejected)"),
    )
    assert ("payments.apologise", "Credited", "Missing") not in [
        about for _, _, about in said(source + fallback, "C07")
    ]


def test_a_failure_that_hurts_nobody_undoes_nothing():
    mail = """
event Told on mails
failure Bounced on mails
mails = Service("mails")

@mails.on(Charged)
async def tell(charged: Charged) -> Told | Bounced: ...
"""
    assert said(SHOP + mail, "C07") == []
    assert said(SHOP + mail, "C06") == [("info", "mails.tell", ("Bounced",))]
    without_ends = changed(SHOP + mail, (" ends completed", ""), (" ends failed", ""))
    assert said(without_ends, "C07") == [
        ("warning", "payments.refund", ("payments.charge", "Charged", "Bounced")),
        ("warning", "stock.release", ("stock.reserve", "Reserved", "Bounced")),
    ], "nothing says what a saga needs for its end"


def test_a_failure_behind_which_there_is_another_way_is_not_fatal():
    source = """
event Asked on asks
event Done, DoneSlowly on work
failure TooBusy on work
event Closed on asks ends completed
quick, slow, desk = map(Service, ("quick", "slow", "desk"))

@quick.on(Asked)
async def work(asked: Asked, ctx: Context) -> Done | TooBusy:
    await ctx.db.execute("INSERT INTO work VALUES (1)")

@slow.on(TooBusy)
async def work_slowly(busy: TooBusy) -> DoneSlowly: ...

@desk.on(Done, DoneSlowly)
async def close(done: Done | DoneSlowly) -> Closed | None: ...
"""
    assert findings(source) == []


def test_a_service_that_has_an_effect_and_never_hears():
    without = changed(SHOP, (REFUND, ""))
    found = findings(without, "C06")
    assert {(f.severity, f.handler, f.about) for f in found} == {("warning", "payments.charge", ("Rejected",))}
    assert found[0].paths == (("Charged", "shipping.ship", "Rejected"),)
    harmless = changed(without, ('    await ctx.db.execute("INSERT INTO charges VALUES (?)", (placed.id,))', "    ..."))
    assert said(harmless, "C06") == [("info", "payments.charge", ("Rejected",))]
    by_hand = without + "\n@payments.on(Cancelled)\nasync def refund(cancelled: Cancelled) -> Refunded | None: ..."
    assert said(by_hand, "C06") == []


def test_nothing_is_said_of_effects_where_nothing_is_ever_undone_and_no_effect_shows():
    source = """
event Asked, Scored on asks
event Approved on asks ends completed
failure Blocked on asks ends failed
scoring, desk = Service("scoring"), Service("desk")

@scoring.on(Asked)
async def score(asked: Asked, ctx: Context) -> Scored:
    await ctx.state.model.score(asked)

@desk.on(Scored)
async def decide(scored: Scored) -> Approved | Blocked: ...
"""
    assert findings(source) == []


def test_a_failure_that_only_stops_something_is_heard():
    source = """
event Asked, Answered on asks
failure Refused on asks
desk, log = Service("desk"), Service("log")

@desk.on(Asked)
async def answer(asked: Asked) -> Answered | Refused: ...

@log.deadline(Asked, within="1h", unless=(Answered, Refused))
async def late(asked: Asked) -> None: ...
"""
    assert said(source, "C06") == []
    assert said(changed(source, ("unless=(Answered, Refused)", "unless=(Answered,)")), "C06") == [
        ("warning", "desk.answer", ("Refused",))
    ]


def test_the_same_effect_undone_by_a_second_handler():
    twice = "\n@payments.on(Cancelled)\nasync def pay_back(cancelled: Cancelled) -> Refunded | None: ..."
    assert said(SHOP + twice, "C08") == [("warning", "payments.pay_back", ("payments.refund", "Cancelled"))]
    elsewhere = twice.replace("@payments", "@orders")
    assert said(SHOP + elsewhere, "C08") == [], "another service's refund is another refund"


def test_a_compensation_for_what_the_failure_excludes():
    source = changed(SHOP, ("compensates(charge, on=(Cancelled,))", "compensates(charge, on=(Cancelled, Declined))"))
    source = changed(
        source, ("refund(charged: Charged, failure: Cancelled)", "refund(charged: Charged, failure: Failure)")
    )
    assert said(source, "C08") == [("warning", "payments.refund", ("Declined",))]
    twice = changed(
        source,
        ("@payments.on(Placed)", "@payments.on(Placed, Retried)"),
        ("charge(placed: Placed,", "charge(placed: Placed | Retried,"),
        ("event Placed on", "event Placed, Retried on"),
    )
    again = "\n@orders.on(Placed)\nasync def retry(placed: Placed) -> Retried | None: ..."
    assert said(twice + again, "C08") == [], "called twice, it may emit one and then the other"


@pytest.mark.parametrize(
    ("harm", "codes"),
    [
        ("-> Sent | Lost: ...", ["C09"]),
        ("-> Sent: ...", []),
    ],
)
def test_what_comes_after_the_completion_may_not_fail_the_saga(harm, codes):
    after = f"""
mails = Service("mails")

@mails.on(Confirmed)
async def send(confirmed: Confirmed) {harm}
"""
    before = "event Sent on mails\nfailure Lost on mails\n"
    heard = changed(
        before + SHOP + after,
        ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined, Missing, Rejected, Lost)"),
        ("Declined | Missing | Rejected)", "Declined | Missing | Rejected | Lost)"),
    )
    found = findings(heard)
    assert [f.code for f in found if f.severity == "error"] == codes
    assert all(f.paths == (("Confirmed", "mails.send", "Lost"),) for f in found if f.code == "C09")


def test_a_failure_after_the_completion_that_hurts_nobody_is_no_matter():
    after = "\nfailure Lost on mails\nmails = Service('mails')\n\n@mails.on(Confirmed)\nasync def send(confirmed: Confirmed) -> Lost | None: ..."
    assert said(SHOP + after, "C09") == []


def test_a_compensation_that_gives_up_unheard():
    source = changed(
        SHOP, ("-> Refunded: ...", "-> Refunded | Stuck: ..."), ("failure Declined on", "failure Declined, Stuck on")
    )
    assert said(source, "C10") == [("warning", "payments.refund", ("Stuck",))]
    heard = "\n@orders.on(Stuck)\nasync def call_the_customer(stuck: Stuck) -> None: ..."
    assert said(source + heard, "C10") == []


def test_a_search_that_takes_too_long_finds_less_and_says_so():
    from choreo import Choreography
    from choreo.check import check
    from tests.unit.check.flows import services_of

    source = changed(
        SHOP,
        ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined)"),
        ("cancel(failure: Declined | Missing | Rejected)", "cancel(failure: Declined)"),
    )
    choreography = Choreography.of(services_of(source))
    full, hasty = check(choreography), check(choreography, steps=3)
    assert full.gave_up == 0
    assert hasty.gave_up > 0
    assert set(hasty.findings) < set(full.findings)
