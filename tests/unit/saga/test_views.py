"""How sagas look: what is shown is all there is, in the order of causes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from choreo.printable import columns
from choreo.saga.views import diff, grid, ledger, sequence, summary, timeline, tree
from choreo.saga.views.causes import Causes
from choreo.saga.views.lines import lasting, moment, plain
from tests.unit.saga.sagas import (
    COMPENSATED,
    COMPLETED,
    DEAD,
    EVIL,
    GRAPH,
    PLACED,
    REFUNDED,
    T0,
    deep,
    duty,
    event,
    saga,
    wide,
)


def drawn(one) -> str:
    return plain(tree.lines(tree.rows(one, GRAPH)))


def test_tree_of_a_completed_saga():
    assert drawn(COMPLETED) == (
        "Placed  web  0 ms\n"
        "├─ ✓ mail.tell\n"
        "├─ Charged  pay.charge  +12 ms  3 attempts\n"
        "│  └─ ✓ ship.send\n"
        "└─ Reserved x2  stock.reserve  +15 ms\n"
        "   └─ Shipped  ship.send  ✓ ends it: completed  +40 ms\n"
        "      └─ ✓ mail.tell"
    )


def test_tree_of_a_compensated_saga():
    assert drawn(COMPENSATED) == (
        "Placed  web  0 ms\n"
        "├─ ✓ mail.tell\n"
        "├─ Charged  pay.charge  +12 ms\n"
        "│  └─ · ship.send  not needed any more\n"
        "└─ SoldOut  stock.reserve  ✗ ends it: failed  +20 ms\n"
        "   └─ Refunded  pay.refund  ↶ undoes Charged  +55 ms"
    )


def test_tree_with_what_may_still_come_and_what_will_not():
    assert drawn(DEAD) == (
        "Placed  web  0 ms\n"
        "├─ ✗ stock.reserve  dead letter  5 attempts  letter 4f2a90  KeyError: 'sku'\n"
        "│  └─ x Reserved or SoldOut will not come\n"
        "├─ ↻ mail.tell  is called again  2026-10-14T17:46:45.000Z  2 attempts  OSError: no route\n"
        "└─ Charged  pay.charge  +12 ms\n"
        "   └─ ⋈ ship.send  waits for more\n"
        "      └─ ┄ Shipped may come"
    )


def test_what_is_undeclared_is_marked_and_says_why():
    odd = replace(PLACED, id="odd", cause="e1", oddity="stock declares no handler that emits it")
    assert "└─ ~ Placed  web  +0 ms  stock declares no handler that emits it" in drawn(
        saga([PLACED, odd], [], "diverged", "")
    )


def test_many_siblings_are_folded_and_the_unusual_ones_are_not():
    many = wide(30, below=2)
    assert drawn(many).splitlines()[-1] == "└─ Charged x29 more, not shown  58 events below them  nothing unusual"
    with_dead = replace(many, duties=(*many.duties, duty("mail.tell", "w17-1", "dead", error="OSError: gone")))
    rows = tree.rows(with_dead, GRAPH)
    assert "OSError: gone" in plain(tree.lines(rows))
    assert "w17" in {row.event for row in rows if row.kind == "event"}
    shown = sum(row.kind == "event" for row in rows)
    folded = sum(row.copies + int(row.notes[0].split()[0]) for row in rows if row.kind == "fold")
    assert shown + folded == len(many.events)


def test_few_siblings_are_all_shown():
    assert sum(row.kind == "event" for row in tree.rows(wide(20), GRAPH)) == 21


def test_a_deep_chain_stays_readable():
    found = drawn(deep(200)).splitlines()
    assert len(found) == 201
    assert max(map(len, found)) < 120
    assert "(200 deep) Moved" in found[-1]


@pytest.mark.parametrize("one", [deep(10_000), wide(10_000), wide(100, below=100)], ids=["deep", "wide", "bushy"])
def test_ten_thousand_events_are_no_trouble(one):
    assert drawn(one)
    assert len(sequence.arrows(one)) == len(one.events)
    assert not [pair for pair in diff.diff(one, one, GRAPH) if pair.side != "both"]
    assert plain(timeline.lines(one))


def test_events_that_cause_each_other_are_all_shown():
    walked = [each.id for each, _ in Causes(EVIL).walk()]
    assert sorted(walked) == sorted(each.id for each in EVIL.events)
    assert sum(row.kind == "event" for row in tree.rows(EVIL, GRAPH)) == len(EVIL.events)


def test_a_duty_about_an_event_that_is_not_there_is_shown():
    assert "x.y  not handled yet" in drawn(EVIL)
    assert "event missing is not here" in drawn(EVIL)


def test_sequence():
    assert plain(sequence.lines(COMPENSATED)) == (
        "web    mail   pay    stock  ship\n"
        "●──────▶──────▶──────▶      │       Placed  +0 ms\n"
        "│      │      ●──────┼──────▶       Charged  +12 ms\n"
        "│      │      ◀──────●      │       SoldOut ends it: failed  +20 ms\n"
        "│      │      ●      │      │       Refunded ↶ undoes Charged  +55 ms"
    )


def test_sequence_shows_failed_attempts_on_the_lifeline():
    found = plain(sequence.lines(DEAD)).splitlines()
    assert "│      │      │      ✗      │       stock.reserve: gave up, 5 attempts, KeyError: 'sku'" in found


def test_sequence_on_a_narrow_terminal_numbers_the_services():
    found = plain(sequence.lines(COMPENSATED, width=40)).splitlines()
    assert found[:2] == ["  1 web", "  2 mail"]
    assert found[5].split() == ["1", "2", "3", "4", "5"]
    assert found[6].startswith("●───▶───▶───▶   │")


def test_timeline_says_where_the_time_went():
    steps = {(step.type, step.handler): step for step in timeline.steps(COMPLETED)}
    charge = steps["Placed", "pay.charge"]
    assert (charge.broker_ms, charge.handled_ms, charge.emitted, charge.critical) == (2, 10, ("Charged",), False)
    assert [step.handler for step in timeline.steps(COMPLETED) if step.critical] == ["stock.reserve", "ship.send"]
    slowest = timeline.slowest(timeline.steps(COMPLETED))
    assert slowest is not None
    assert (slowest.handler, slowest.handled_ms) == ("ship.send", 23)


def test_timeline_says_clock_skew():
    late = event("e2", "Charged", "e1", "pay.charge", -5)
    one = saga([PLACED, late], [duty("pay.charge", "e1", "done", "e2")], "running", "")
    assert timeline.steps(one)[0].skew
    assert "clock skew" in plain(timeline.lines(one))
    assert not any(step.skew for step in timeline.steps(COMPLETED))


@pytest.mark.parametrize("width", [20, 60, 100, 200])
def test_all_bars_have_one_length(width):
    rows = plain(timeline.lines(replace(DEAD, duties=DEAD.duties[1:2]), width=width)).splitlines()
    bars = {len(row.rstrip()) for row in rows[:1]}
    assert len(bars) == 1
    assert all("░" in row or "█" in row for row in rows[1:-1])


def test_ledger():
    assert plain(ledger.lines(COMPENSATED)) == (
        "effect   step        status  undone by               because of\n"
        "Charged  pay.charge  undone  pay.refund -> Refunded  SoldOut\n"
        "1 undone"
    )
    assert plain(ledger.lines(replace(DEAD, ledger=()))) == "no step has an effect that could have to be undone"


def test_columns_stand_below_each_other_whatever_a_key_is():
    keys = ["o-1", "漢字", "\x1b[31mred", "e\u0301"]
    rows = grid.lines(("key", "state"), [[(key, ""), ("failed", "")] for key in keys])
    assert [columns("".join(text for text, _ in row.spans[:-1])) for row in rows] == [11 + 2] * 5


def test_diff_marks_where_two_sagas_part():
    pairs = diff.diff(COMPLETED, COMPENSATED, GRAPH)
    first = next(pair for pair in pairs if pair.first)
    assert (first.what, first.side) == ("Reserved  stock.reserve", "left")
    assert [pair.what for pair in pairs if pair.side == "right"] == ["SoldOut  stock.reserve", "Refunded  pay.refund"]
    charged = next(pair for pair in pairs if pair.what.startswith("Charged"))
    assert (charged.left_ms, charged.right_ms, charged.side) == (12, 12, "both")


def test_diff_of_sagas_of_one_shape():
    text = plain(diff.lines(COMPENSATED, COMPENSATED, GRAPH))
    assert "the same events came of the same causes" in text
    text = plain(diff.lines(COMPLETED, replace(COMPLETED, duties=COMPLETED.duties[:1]), GRAPH))
    assert "<- they part here" in text


def test_diff_does_not_mind_which_event_of_a_join_came_last():
    other = replace(COMPLETED, events=(*COMPLETED.events[:3], replace(COMPLETED.events[3], cause="e2")))
    assert not [pair for pair in diff.diff(COMPLETED, other, GRAPH) if pair.side != "both"]


def test_summary():
    assert plain(summary.lines(DEAD, now_ms=T0 + 60_000)) == (
        "Placed o-1  FAILED  stock.reserve has given up on Placed\n"
        "saga     0198c3f2-0000-7000-8000-000000000001\n"
        "started  2026-10-14T17:46:40.000Z, 1 m ago, nothing new for 59.99 s\n"
        "has      2 events of web, pay, mail, stock, ship\n"
        "trace    4bf92f3577b34da6a3ce929d0e0e4736\n"
        "letters  4f2a90"
    )
    traced = replace(
        COMPLETED, events=(*COMPLETED.events, *(replace(REFUNDED, trace_id=f"{n:032x}") for n in range(9)))
    )
    assert "and 5 more" in plain(summary.lines(traced, now_ms=T0))


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (950, "950 ms"), (1250, "1.25 s"), (10_000, "10 s"), (185_000, "3 m 5 s"), (7_800_000, "2 h 10 m"),
     (274_000_000, "3 d 4 h"), (-5, "-5 ms"), (-61_000, "-1 m 1 s"), (86_400_000, "1 d")],
)  # fmt: skip
def test_durations_for_reading(ms, text):
    assert lasting(ms) == text


def test_times_that_no_calendar_has():
    assert moment(0) == "1970-01-01T00:00:00.000Z"
    assert moment(10**17) == "100000000000000000 ms since 1970"
    assert moment(-1) == "-1 ms since 1970"
