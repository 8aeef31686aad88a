"""Reports: their formats, the baseline, and that the order of services does not matter."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from choreo import Choreography, ConfigurationError, DeclarationError
from choreo.check import RULES, Place, Report, baseline, check, check_apart, formats
from choreo.check.finding import Finding
from choreo.check.sarif import sarif
from tests.unit.check.flows import EXAMPLES, changed, services_of
from tests.unit.check.test_failures_and_compensations import SHOP

FOUND = Finding(
    code="C07",
    severity="error",
    handler="payments.refund",
    about=("payments.charge", "Charged", "Rejected"),
    message="nothing undoes it: 100 %, really",
    remedy="add Rejected",
    paths=(("Placed", "payments.charge", "Charged"), ("Placed", "ship", "Rejected")),
    place=Place(str(Path.cwd() / "services" / "pay,ments.py"), 12),
)
NOTE = Finding(
    code="C01", severity="info", handler="mail.tell", about=("Told",), message="nobody reacts", remedy="nothing"
)


def report(*findings, name="shop", gave_up=0):
    return Report(name=name, services=2, handlers=3, events=4, findings=findings, gave_up=gave_up)


def test_text_shows_everything():
    assert formats.text([report(FOUND, NOTE, gave_up=2), report(name="other")]).splitlines() == [
        "shop (services: 2, handlers: 3, events: 4): 1 error, 1 note",
        "",
        "error C07 payments.refund (services/pay,ments.py:12)",
        "  nothing undoes it: 100 %, really",
        "    Placed -> payments.charge -> Charged",
        "    Placed -> ship -> Rejected",
        "  add Rejected",
        "",
        "info C01 mail.tell",
        "  nobody reacts",
        "  nothing",
        "",
        "2 questions about paths were given up after very many steps: there may be more findings of C07, C11 and C14",
        "",
        "other (services: 2, handlers: 3, events: 4): nothing found",
    ]


def test_json_holds_everything():
    data = json.loads(formats.as_json([report(FOUND, gave_up=2)]))
    assert data["version"] == 1
    (shop,) = data["choreographies"]
    assert {name: shop[name] for name in ("name", "services", "handlers", "events", "gave_up")} == {
        "name": "shop", "services": 2, "handlers": 3, "events": 4, "gave_up": 2,
    }  # fmt: skip
    (found,) = shop["findings"]
    assert (found["file"], found["line"], found["fingerprint"]) == ("services/pay,ments.py", 12, FOUND.fingerprint)
    assert found["paths"] == [list(path) for path in FOUND.paths]


def test_github_shows_annotations_at_the_handlers_lines():
    first, second = formats.github([report(FOUND, NOTE)]).splitlines()
    assert first == (
        "::error file=services/pay%2Cments.py,line=12,title=C07 payments.refund::nothing undoes it: 100 %25, really"
        "%0APlaced -> payments.charge -> Charged%0APlaced -> ship -> Rejected%0Aadd Rejected"
    )
    assert second == "::notice title=C01 mail.tell::nobody reacts%0Anothing"


SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {
            "minItems": 1,
            "items": {
                "required": ["tool", "results"],
                "properties": {
                    "tool": {
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "required": ["name", "version", "rules"],
                                "properties": {
                                    "rules": {
                                        "uniqueItems": True,
                                        "items": {"required": ["id", "shortDescription", "help"]},
                                    }
                                },
                            }
                        },
                    },
                    "results": {
                        "items": {
                            "additionalProperties": False,
                            "required": ["ruleId", "ruleIndex", "level", "message", "locations", "partialFingerprints"],
                            "properties": {
                                "ruleId": {"pattern": "^C[0-9]{2}$"},
                                "ruleIndex": {"type": "integer", "minimum": 0},
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "message": {"required": ["text"], "properties": {"text": {"type": "string"}}},
                                "locations": {"items": {"$ref": "#/definitions/location"}},
                                "partialFingerprints": {"additionalProperties": {"type": "string"}},
                                "codeFlows": {
                                    "minItems": 1,
                                    "items": {
                                        "required": ["threadFlows"],
                                        "properties": {
                                            "threadFlows": {
                                                "minItems": 1,
                                                "items": {
                                                    "required": ["locations"],
                                                    "properties": {
                                                        "locations": {
                                                            "minItems": 1,
                                                            "items": {
                                                                "properties": {
                                                                    "location": {"$ref": "#/definitions/location"}
                                                                }
                                                            },
                                                        }
                                                    },
                                                },
                                            }
                                        },
                                    },
                                },
                            },
                        }
                    },
                },
            },
        },
    },
    "definitions": {
        "location": {
            "additionalProperties": False,
            "properties": {
                "message": {"required": ["text"]},
                "logicalLocations": {"items": {"required": ["fullyQualifiedName"]}},
                "physicalLocation": {
                    "required": ["artifactLocation", "region"],
                    "properties": {
                        "artifactLocation": {"required": ["uri"], "properties": {"uri": {"pattern": r"^[^\s\\]+$"}}},
                        "region": {"properties": {"startLine": {"type": "integer", "minimum": 1}}},
                    },
                },
            },
        }
    },
}
"""What of the SARIF 2.1.0 schema is used here, written down by hand."""


def test_sarif_has_the_shape_that_services_read():
    data = json.loads(sarif([report(FOUND, NOTE), report(name="other")]))
    jsonschema.validate(data, SARIF)
    (run,) = data["runs"]
    first, second = run["results"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [rule.code for rule in RULES]
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "C07"
    assert (first["level"], second["level"]) == ("error", "note")
    assert first["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "services/pay%2Cments.py"},
        "region": {"startLine": 12},
    }
    assert "physicalLocation" not in second["locations"][0]
    flow = first["codeFlows"][0]["threadFlows"][1]["locations"]
    assert [step["location"]["message"]["text"] for step in flow] == ["Placed", "ship", "Rejected"]


def test_sarif_of_everything_that_can_be_found_has_this_shape():
    reports = [check(Choreography.of(services_of(example)), code) for code, example in EXAMPLES.items()]
    data = json.loads(sarif(reports))
    jsonschema.validate(data, SARIF)
    assert {result["ruleId"] for result in data["runs"][0]["results"]} == set(EXAMPLES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_every_rule_is_explained(rule):
    text = formats.explanation(rule)
    assert text.startswith(f"{rule.code} {rule.title}\n\n")
    for part in (rule.means, rule.why, rule.mend):
        assert " ".join(part.split()) in " ".join(text.split())
    assert all(f"    {line}".rstrip() in text.splitlines() for line in rule.example.strip().splitlines())
    assert max(map(len, text.splitlines())) <= 140


def test_a_baseline_keeps_known_findings_quiet(tmp_path):
    file = tmp_path / "known.json"
    assert baseline.write(file, [report(FOUND), report(NOTE, name="other")]) == 2
    known = baseline.read(file)
    assert [row["code"] for row in json.loads(file.read_text())["findings"]] == ["C01", "C07"]
    new = Finding(code="C02", severity="error", handler="mail.tell", about=("Told",), message="", remedy="")
    left, gone = baseline.without([report(FOUND, new)], known)
    assert ([one.findings for one in left], gone) == ([(new,)], 1)


def test_a_finding_is_known_again_when_lines_move_and_words_change():
    moved = Finding(
        code=FOUND.code, severity="warning", handler=FOUND.handler, about=FOUND.about, message="x", remedy="y"
    )
    assert moved.fingerprint == FOUND.fingerprint
    assert NOTE.fingerprint != FOUND.fingerprint


@pytest.mark.parametrize(
    "content", [None, "", "[]", '{"version": 2, "findings": []}', '{"version": 1}', '{"version": 1, "findings": [1]}']
)
def test_a_baseline_that_cannot_be_read(tmp_path, content):
    file = tmp_path / "known.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(
        ConfigurationError,
        match=re.escape(f"baseline {file} cannot be read: ") + r".*\(write it with --write-baseline\)",
    ):
        baseline.read(file)


def test_a_baseline_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be written"):
        baseline.write(tmp_path / "absent" / "known.json", [])


BROKEN = changed(
    SHOP,
    ("@orders.on(Declined, Missing, Rejected)", "@orders.on(Declined)"),
    ("cancel(failure: Declined | Missing | Rejected)", "cancel(failure: Declined)"),
)
SERVICES = {code: services_of(source) for code, source in {"shop": BROKEN, **EXAMPLES}.items()}


@given(st.sampled_from(sorted(SERVICES)), st.randoms())
def test_findings_do_not_depend_on_the_order_of_services(code, chance):
    expected = check(Choreography.of(SERVICES[code])).findings
    shuffled = list(SERVICES[code])
    chance.shuffle(shuffled)
    assert expected
    assert check(Choreography.of(shuffled)).findings == expected


ONE = 'event Asked on asks\ndesk = Service("desk")\n@desk.on(Asked)\nasync def answer(asked: Asked) -> None: ...'


def test_choreographies_of_their_own_share_no_service_name():
    shop, other = (Choreography.of(services_of(ONE)) for _ in range(2))
    with pytest.raises(
        DeclarationError, match=r"a\.shop and a\.other both have a service 'desk': .*\(rename one of them\)"
    ):
        check_apart({"a.shop": shop, "a.other": other})


def test_choreographies_of_their_own_mean_one_event_by_one_name_in_one_topic():
    shop = Choreography.of(services_of(ONE))
    for change, refused in (("event Asked on other", False), ("event Asked on asks ends completed", True)):
        other = Choreography.of(services_of(ONE.replace('"desk"', '"shelf"').replace("event Asked on asks", change)))
        if refused:
            with pytest.raises(DeclarationError, match="mean different events by 'Asked' in topic asks"):
                check_apart({"shop": shop, "other": other})
        else:
            check_apart({"shop": shop, "other": other})
