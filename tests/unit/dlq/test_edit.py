"""Changing data field by field."""

import pytest

from choreo.dlq.edit import with_fields
from choreo.errors import ConfigurationError

DATA = {"id": "o-1", "total": 2, "to": {"city": "Ulm", "zip": None}, "lines": [{"sku": "A"}, {"sku": "B"}]}


@pytest.mark.parametrize(
    ("assignment", "changed"),
    [
        ("total=3", {"total": 3}),
        ('id="o-2"', {"id": "o-2"}),
        ("id=o=2", {"id": "o=2"}),
        ("to.city=Bonn", {"to": {"city": "Bonn", "zip": None}}),
        ("to.zip=", {"to": {"city": "Ulm", "zip": ""}}),
        ('lines.1={"sku": "C"}', {"lines": [{"sku": "A"}, {"sku": "C"}]}),
        ("lines.0.sku=C", {"lines": [{"sku": "C"}, {"sku": "B"}]}),
        ("note=new", {"note": "new"}),
    ],
)
def test_fields_are_set(assignment, changed):
    before = repr(DATA)
    assert with_fields(DATA, [assignment]) == DATA | changed
    assert repr(DATA) == before, "the data itself is left alone"


@pytest.mark.parametrize("assignment", ["total", "=3", "lines.7=x", "lines.a=x", "total.x=1", "nobody.city=Ulm"])
def test_what_leads_nowhere_is_refused(assignment):
    with pytest.raises(ConfigurationError, match="cannot be set"):
        with_fields(DATA, [assignment])
