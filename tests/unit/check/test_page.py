"""docs/checking.md says what is so."""

import re
from pathlib import Path

from choreo import Choreography
from choreo.check import RULES, check
from choreo.check.formats import text
from tests.unit.check.flows import changed, services_of

PAGE = (Path(__file__).parents[3] / "docs" / "checking.md").read_text("utf-8")
(EXAMPLE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_table_names_every_rule():
    assert re.findall(r"^\| (C\d\d) \| (.*) \|$", PAGE, re.MULTILINE) == [(rule.code, rule.title) for rule in RULES]


def test_the_example_is_found_as_shown():
    (shown,) = re.findall(r"```\n(shop .*?)```", PAGE, re.DOTALL)
    said = text([check(Choreography.of(services_of(EXAMPLE)), "shop")])

    def without_places(report):
        return re.sub(r" \(\w+\.py:\d+\)", "", report).strip()

    assert without_places(said) == without_places(shown)
    lines = EXAMPLE.splitlines()
    places = re.findall(r"\.(\w+) \(shop\.py:(\d+)\)", shown)
    assert places
    for name, number in places:
        assert lines[int(number) - 1].startswith(f"async def {name}(")


def test_the_mended_example_is_clean():
    mended = changed(
        EXAMPLE,
        ("@orders.on(PaymentDeclined)", "@orders.on(PaymentDeclined, ShipmentRejected)"),
        ("cancel(declined: PaymentDeclined)", "cancel(failure: Failure)"),
    )
    assert check(Choreography.of(services_of(mended))).findings == ()
