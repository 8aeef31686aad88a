import json

import pytest

BROKEN = """
from choreo import Event, Failure, Service

class OrderPlaced(Event, topic="{topic}", key="order_id"):
    order_id: str

class PaymentCharged(Event, topic="{topic}", key="order_id"):
    order_id: str

class ShipmentRejected(Failure, topic="{topic}", key="order_id"):
    order_id: str

payments = Service("{name}")

@payments.on(OrderPlaced)
async def charge(order: OrderPlaced) -> PaymentCharged: ...

@payments.compensates(charge, on=(ShipmentRejected,))
async def refund(charged: PaymentCharged, failure: ShipmentRejected) -> None: ...
"""
CLEAN = """
from choreo import Event, Service

class Asked(Event, topic="asks", key="ask_id"):
    ask_id: str

desk = Service("desk")

@desk.on(Asked)
async def answer(asked: Asked) -> None: ...
"""
LINE = BROKEN[: BROKEN.index("async def refund")].count("\n") + 1


@pytest.fixture
def module(project):
    def write(name, source):
        path = project.joinpath(*name.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        return name

    return write


@pytest.fixture
def broken(module):
    return module("cli_broken", BROKEN.format(topic="orders", name="payments"))


@pytest.fixture
def package(module):
    """A package of packages: one in order, one broken, one without services."""
    module("cli_flows.__init__", "")
    module("cli_flows.asking.__init__", CLEAN)
    module("cli_flows.paying.__init__", BROKEN.format(topic="orders", name="payments"))
    module("cli_flows.common.__init__", "WORD = 1")
    module("cli_flows.tools", "raise RuntimeError('no package, not imported')")
    return "cli_flows"


def test_nothing_found_is_code_0(cli, module):
    ended = cli("check", module("cli_clean", CLEAN))
    assert (ended.code, ended.out) == (0, "cli_clean (services: 1, handlers: 1, events: 1): nothing found\n")


def test_findings_are_code_1_with_their_place_and_remedy(cli, broken):
    ended = cli("check", broken)
    assert ended.code == 1
    assert ended.out.startswith(
        "cli_broken (services: 1, handlers: 2, events: 3): 1 error\n\n"
        f"error C02 payments.refund (cli_broken.py:{LINE})\n"
        "  payments.refund is declared on=ShipmentRejected, which no service emits\n"
    )


def test_notes_are_code_0(cli, module):
    source = CLEAN.replace("-> None", "-> Answered").replace(
        "desk = ", 'class Answered(Event, topic="asks", key="ask_id"):\n    ask_id: str\n\nclass Done(Event, topic="asks", '
        'key="ask_id", ends="completed"):\n    ask_id: str\n\ndesk = '
    ) + "\n@desk.on(Asked)\nasync def close(asked: Asked) -> Done: ...\n"  # fmt: skip
    ended = cli("check", module("cli_noted", source))
    assert ended.code == 0
    assert "1 note" in ended.out
    assert "info C01 desk.answer" in ended.out


def test_a_package_of_packages_is_several_choreographies(cli, package):
    ended = cli("check", package)
    assert ended.code == 1
    heads = [line for line in ended.out.splitlines() if "services:" in line]
    assert [line.partition(" ")[0] for line in heads] == ["cli_flows.asking", "cli_flows.paying"]


def test_modules_beside_each_other_are_one_choreography(cli, package, module):
    shipping = BROKEN[: BROKEN.index("payments =")].format(topic="orders") + (
        'shipping = Service("shipping")\n\n@shipping.on(PaymentCharged)\n'
        "async def ship(paid: PaymentCharged) -> ShipmentRejected | None: ...\n"
    )
    module("cli_shipping", shipping)
    ended = cli("check", "cli_flows.paying", "cli_shipping")
    assert ended.code == 0, "now a service emits it"
    assert ended.out.startswith("cli_flows.paying cli_shipping (services: 2, handlers: 3, events: 3)")


def test_choreographies_of_their_own_may_not_share_service_names(cli, package, module):
    module("cli_flows.returns.__init__", BROKEN.format(topic="returns", name="payments"))
    ended = cli("check", package)
    assert ended.code == 1
    assert ended.err.startswith("choreo: cli_flows.paying and cli_flows.returns both have a service 'payments'")


def test_one_service_alone(cli):
    ended = cli("check", "cli_shop:mail")
    assert (ended.code, ended.out) == (0, "cli_shop:mail (services: 1, handlers: 1, events: 2): nothing found\n")


def test_a_package_without_any_services(cli, module):
    module("cli_empty.__init__", "")
    module("cli_empty.inside.__init__", "")
    ended = cli("check", "cli_empty")
    assert ended.code == 2
    assert "module 'cli_empty' has no services" in ended.err


def test_json(cli, broken):
    ended = cli("check", broken, "--format", "json")
    assert ended.code == 1
    (found,) = json.loads(ended.out)["choreographies"][0]["findings"]
    assert (found["code"], found["file"], found["line"]) == ("C02", "cli_broken.py", LINE)


def test_sarif(cli, broken):
    ended = cli("check", broken, "-f", "sarif")
    (result,) = json.loads(ended.out)["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert (ended.code, place["artifactLocation"]["uri"], place["region"]["startLine"]) == (1, "cli_broken.py", LINE)


def test_github(cli, broken, module):
    ended = cli("check", broken, "-f", "github")
    assert ended.code == 1
    assert ended.out.startswith(f"::error file=cli_broken.py,line={LINE},title=C02 payments.refund::")
    assert cli("check", module("cli_clean", CLEAN), "-f", "github").out == ""


def test_a_baseline_hides_what_is_known_and_tells_what_is_gone(cli, broken, module, project):
    written = cli("check", broken, "--baseline", "known.json", "--write-baseline")
    assert (written.code, written.out, written.err) == (0, "", "1 finding written to known.json\n")
    again = cli("check", broken, "--baseline", "known.json")
    assert (again.code, again.err) == (0, "")
    assert "nothing found" in again.out
    other = cli("check", module("cli_clean", CLEAN), "--baseline", "known.json")
    assert (other.code, other.err) == (0, "choreo: 1 finding of known.json is gone (--write-baseline)\n")


def test_a_new_finding_beside_a_baseline(cli, broken, module):
    cli("check", broken, "--baseline", "known.json", "--write-baseline")
    more = BROKEN.format(topic="orders", name="payments") + (
        "\n@payments.deadline(OrderPlaced, within='1h', unless=(ShipmentRejected,))\n"
        "async def late(order: OrderPlaced) -> None: ...\n"
    )
    ended = cli("check", module("cli_more", more), "--baseline", "known.json")
    assert ended.code == 1
    assert "error C02 payments.late" in ended.out
    assert "payments.refund" not in ended.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cli_shop", "--write-baseline"], "--write-baseline names no file (add --baseline FILE)"),
        (["cli_shop", "--baseline", "absent.json"], "baseline absent.json cannot be read: it is not there"),
        (["--explain", "C99"], "there is no rule 'C99' (the rules are: C01 (Orphan event), "),
        (["cli_absent"], "there is no module 'cli_absent'"),
        (["cli_shop", "--format", "xml"], "'xml'"),
        ([], "no module is named"),
    ],
)
def test_wrong_usage_is_code_2(cli, arguments, message):
    ended = cli("check", *arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("code", ["C07", "c07"])
def test_a_rule_is_explained_without_any_module(cli, code):
    ended = cli("check", "--explain", code)
    assert ended.code == 0
    assert ended.out.startswith("C07 Compensation incomplete\n")
    assert "    @payments.compensates(charge, on=(AddressUnknown,))" in ended.out


def test_help_shows_examples(cli):
    assert "choreo check --explain C07" in cli("check", "--help").out
