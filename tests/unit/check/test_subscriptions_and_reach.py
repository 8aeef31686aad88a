"""C01 to C05 beyond their examples."""

import pytest

from tests.unit.check.flows import changed, findings

SIMPLE = """
event Asked, Answered, Noted on asks
event Closed on asks ends completed
desk, log = Service("desk"), Service("log")

@desk.on(Asked)
async def answer(asked: Asked) -> Answered: ...

@desk.on(Answered)
async def close(answered: Answered) -> Closed: ...

@log.on(Asked)
async def note(asked: Asked) -> Noted: ...
"""


def said(source, code):
    return [(finding.severity, finding.handler, finding.about) for finding in findings(source, code)]


def test_an_event_that_nobody_hears_is_a_note_where_others_end_their_sagas():
    assert said(SIMPLE, "C01") == [("info", "log.note", ("Noted",))]
    assert said(changed(SIMPLE, (" ends completed", "")), "C01") == []


@pytest.mark.parametrize("name", ["events.Noted", "noted", "No_ted"])
def test_an_event_of_nearly_the_same_name_that_is_waited_for_makes_it_an_error(name):
    waiting = f"""
class View(Event, topic="asks", key="id", name="{name}"):
    id: str

@desk.on(View)
async def read(noted: View) -> None: ...
"""
    assert said(SIMPLE + waiting, "C01") == [("error", "log.note", ("Noted", name))]
    assert said(SIMPLE + waiting.replace(name, "Written"), "C01") == [("info", "log.note", ("Noted",))]


STOPS = """
@desk.deadline(Answered, within="1h", unless=(Noted,))
async def late(answered: Answered) -> None: ...
"""
UNDONE = """
failure Refused on asks

@desk.on(Asked)
async def refuse(asked: Asked) -> Refused | None: ...

@log.compensates(note, on=(Refused,))
async def strike(noted: Noted, failure: Refused) -> None: ...
"""


@pytest.mark.parametrize("use", [STOPS, UNDONE], ids=["stops", "is undone"])
def test_an_event_that_stops_something_or_is_undone_is_heard(use):
    assert said(SIMPLE + use, "C01") == []


UNLESS = """
event Asked, Answered on asks
desk = Service("desk")

@desk.deadline(Asked, within="1h", unless=(Answered,))
async def late(asked: Asked) -> None: ...
"""


def test_a_deadline_that_nothing_can_stop():
    assert said(UNLESS, "C02") == [("error", "desk.late", ("Answered",))]


def test_what_comes_from_outside_may_stop_a_deadline():
    outside = "\n@desk.on(Answered)\nasync def close(answered: Answered) -> None: ..."
    assert said(UNLESS + outside, "C02") == []


def test_a_failure_from_outside_may_undo_and_is_worth_a_look():
    source = """
event Asked, Answered on asks
failure Withdrawn on asks
desk, log = Service("desk"), Service("log")

@desk.on(Asked)
async def answer(asked: Asked) -> Answered: ...

@desk.compensates(answer, on=(Withdrawn,))
async def forget(answered: Answered, failure: Withdrawn) -> None: ...
"""
    outside = "\n@log.on(Withdrawn)\nasync def note(withdrawn: Withdrawn) -> None: ..."
    assert said(source, "C02") == [("error", "desk.forget", ("Withdrawn",))]
    assert said(source + outside, "C02") == [("info", "desk.forget", ("Withdrawn",))]


CIRCLE = """
event Asked, First, Second, Third on asks
a, b = Service("a"), Service("b")

@a.on(Second)
async def one(event: Second) -> First | None: ...

@b.on(First)
async def two(event: First) -> Second: ...

@b.on(Second)
async def three(event: Second) -> Third: ...

@b.on(Third)
async def four(event: Third) -> None: ...
"""


def test_a_circle_that_nothing_leads_into_is_never_called_and_told_once():
    assert said(CIRCLE, "C03") == [("error", "a.one", ("Second",)), ("error", "b.two", ("First",))]
    assert said(CIRCLE + "\n@a.on(Asked)\nasync def begin(asked: Asked) -> First: ...", "C03") == []


ALTERNATIVES = """
event Begun, Asked, Yes, No on asks
a, b = Service("a"), Service("b")

@a.on(Begun)
async def ask(begun: Begun) -> Asked: ...

@a.on(Asked)
async def answer(asked: Asked) -> Yes | No: ...

@b.join(Yes, No)
async def both(yes: Yes, no: No) -> None: ...
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("-> Asked", "-> list[Asked]"), ("-> Yes | No", "-> list[Yes | No]"), ("-> Yes | No", "-> tuple[Yes, No]")],
    ids=["asked several times", "a list of both", "both"],
)
def test_a_join_of_alternatives_fires_where_several_come(old, new):
    assert said(ALTERNATIVES, "C03") == [("error", "b.both", ("Yes", "No"))]
    assert said(changed(ALTERNATIVES, (old, new)), "C03") == []


def test_what_stands_beside_a_list_is_still_an_alternative():
    source = changed(ALTERNATIVES, ("-> Yes | No", "-> list[Yes] | No"))
    assert said(source, "C03") == [("error", "b.both", ("Yes", "No"))]


def test_what_a_call_by_another_event_emits_is_no_alternative():
    again = "\n@a.on(Begun)\nasync def answer_at_once(begun: Begun) -> No: ..."
    assert said(ALTERNATIVES + again, "C03") == []


def test_a_join_by_a_field_is_no_more_possible():
    source = changed(ALTERNATIVES, ("join(Yes, No)", 'join(Yes, No, by="id")'))
    assert said(source, "C03") == [("error", "b.both", ("Yes", "No"))]


def test_handlers_of_different_topics_of_a_routed_event_exclude_each_other():
    source = """
class File(Event, topic=route(lambda file: "small", among=("small", "large")), key="id"):
    id: str

class Small(File, topic="small", key="id", name="File"): ...

class Large(File, topic="large", key="id", name="File"): ...

event Read, Streamed on done
a, b, c = Service("a"), Service("b"), Service("c")

@a.on(Small)
async def read(file: Small) -> Read: ...

@b.on(Large)
async def stream(file: Large) -> Streamed: ...

@c.join(Read, Streamed)
async def both(read: Read, streamed: Streamed) -> None: ...
"""
    assert said(source, "C03") == [("error", "c.both", ("Read", "Streamed"))]
    assert said(changed(source, ("@b.on(Large)", "@b.on(File)"), ("file: Large", "file: File")), "C03") == []


def test_sagas_without_an_end_are_a_note_where_others_have_one():
    other = "\nevent Wished, Granted on wishes\n@log.on(Wished)\nasync def grant(wished: Wished) -> Granted: ..."
    assert said(SIMPLE + other, "C04") == [("info", "log.grant", ("Wished",))]
    assert said(SIMPLE, "C04") == []


ROUND = """
event Asked, First, Second on asks
a, b = Service("a"), Service("b")

@a.on(Asked, Second)
async def one(event: Asked | Second) -> First | None: ...

@b.on(First)
async def two(first: First) -> Second: ...
"""


def test_a_circle_with_a_way_out_that_nothing_bounds():
    found = findings(ROUND, "C05")
    assert [(finding.severity, finding.about) for finding in found] == [("warning", ("First", "Second"))]
    assert found[0].paths == (("First", "b.two", "Second", "a.one", "First"),)


def test_a_circle_without_a_way_out_is_told_once_as_such():
    source = changed(ROUND, ("-> First | None", "-> First"))
    assert [(finding.code, finding.about) for finding in findings(source)] == [("C04", ("Asked",))]


def test_a_join_bounds_a_circle():
    edits = [("@b.on(First)", "@b.join(First, Asked)"), ("two(first: First)", "two(first: First, asked: Asked)")]
    assert said(changed(ROUND, *edits), "C05") == []


def test_a_compensation_bounds_a_circle():
    source = """
event Asked, Done, Undone on asks
failure Gone on asks
a, b = Service("a"), Service("b")

@a.on(Asked)
async def do(asked: Asked) -> Done: ...

@b.on(Asked, Undone)
async def check(event: Asked | Undone) -> Gone | None: ...

@a.compensates(do, on=(Gone,))
async def undo(done: Done, gone: Gone) -> Undone: ...
"""
    assert said(source, "C05") == []
    by_hand = changed(
        source, ("@a.compensates(do, on=(Gone,))", "@a.on(Gone)"), ("undo(done: Done, gone: Gone)", "undo(gone: Gone)")
    )
    assert said(by_hand, "C05") == [("warning", "a.undo", ("Gone", "Undone"))]


@pytest.mark.parametrize(
    ("field", "bounded"), [("retry_count: int", True), ("discount: int", False), ("attempt: str", False)]
)
def test_a_field_that_counts_bounds_a_circle(field, bounded):
    counting = f'class Second(Event, topic="asks", key="id"):\n    id: str\n    {field}\n'
    source = changed(ROUND, ("event Asked, First, Second on asks", f"event Asked, First on asks\n{counting}"))
    assert (said(source, "C05") == []) is bounded


def test_a_circle_through_a_deadline_is_a_note():
    source = """
event Asked, Escalated on asks
desk = Service("desk")

@desk.on(Escalated, Asked)
async def ask(event: Escalated | Asked) -> None: ...

@desk.deadline(Asked, within="1d")
async def escalate(asked: Asked) -> Escalated: ...

@desk.on(Escalated)
async def again(event: Escalated) -> Asked | None: ...
"""
    outside = "\nevent Begun on asks\n@desk.on(Begun)\nasync def begin(begun: Begun) -> Asked: ..."
    assert said(source + outside, "C05") == [("info", "desk.escalate", ("Asked", "Escalated"))]


def test_services_that_call_each_other_back_without_coming_round_are_no_circle():
    source = """
event A, B, C, D on letters
one, two = Service("one"), Service("two")

@one.on(A)
async def ab(event: A) -> B: ...

@two.on(B)
async def bc(event: B) -> C: ...

@one.on(C)
async def cd(event: C) -> D: ...
"""
    assert findings(source) == []
