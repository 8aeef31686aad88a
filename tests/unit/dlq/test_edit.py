"""Changing data field by field, and saying what changed."""

import pytest

from choreo.dlq.edit import differences, with_fields
from choreo.errors import ConfigurationError

DATA = {"id": "o-1", "total": 2, "to": {"city": "Ulm", "zip": None}, "lines": [{"sku": "A"}, {"sku": "B"}]}


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("total=3", ("total", "2", "3")),
        ('id="o-2"', ("id", '"o-1"', '"o-2"')),
        ("id=o=2", ("id", '"o-1"', '"o=2"')),
        ("to.city=Bonn", ("to.city", '"Ulm"', '"Bonn"')),
        ("to.zip=", ("to.zip", "null", '""')),
        ('lines.1={"sku": "C"}', ("lines", '[{"sku": "A"}, {"sku": "B"}]', '[{"sku": "A"}, {"sku": "C"}]')),
        ("note=new", ("note", "", '"new"')),
    ],
)
def test_fields_are_set(assignment, changed):
    before = repr(DATA)
    assert list(differences(DATA, with_fields(DATA, [assignment]))) == [changed]
    assert repr(DATA) == before, "the data itself is left alone"


@pytest.mark.parametrize("assignment", ["total", "=3", "lines.7=x", "lines.a=x", "total.x=1", "nobody.city=Ulm"])
def test_what_leads_nowhere_is_refused(assignment):
    with pytest.raises(ConfigurationError, match="cannot be set"):
        with_fields(DATA, [assignment])


def test_equal_data_has_no_differences():
    assert list(differences(DATA, with_fields(DATA, []))) == []
    assert list(differences({"a": 1}, {})) == [("a", "1", "")]
