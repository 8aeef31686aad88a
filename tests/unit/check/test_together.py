"""What can come in one saga, against all sagas that there are: small choreographies, every choice of every handler."""

from collections import Counter
from itertools import combinations_with_replacement, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from choreo.check.model import Model
from choreo.check.search import Goal
from choreo.graph import EventNode, Graph, HandlerNode, Joining


def event_node(name, handlers):
    emitters = tuple(handler.id for handler in handlers if name in handler.emits)
    consumers = tuple(handler.id for handler in handlers if name in handler.consumes)
    return EventNode(
        name,
        ("t",),
        "id",
        failure=False,
        ends=None,
        compensation=False,
        emitted_by=emitters,
        consumed_by=consumers,
        stops=(),
    )


def handler_node(number, consumes, emits, *, join=0, nothing=False, several=()):
    rule = Joining(None, join, None, None) if join else None
    return HandlerNode(
        id=f"s.h{number}", service="s", name=f"h{number}", kind="join" if join else "on", consumes=consumes, stopped_by=(),
        emits=emits, may_emit_nothing=nothing or bool(several), several=several, attempts=5, ordered=True, rule=rule,
    )  # fmt: skip


@st.composite
def choreographies(draw):
    """Each handler emits events of its own, so that it is called once in a saga at most."""
    handlers, events = [], ["e0"]
    for number in range(draw(st.integers(1, 5))):
        consumes = tuple(draw(st.lists(st.sampled_from(events), min_size=1, max_size=3, unique=True)))
        emits = tuple(f"e{number + 1}{letter}" for letter in "abc"[: draw(st.integers(1, 3))])
        kind = draw(st.sampled_from(["on", "join", "several"]))
        if len(consumes) == 1 or kind == "on":
            consumes = consumes[:1]
        handlers.append(
            handler_node(
                number,
                consumes,
                emits,
                join=draw(st.integers(1, len(consumes))) if len(consumes) > 1 else 0,
                nothing=draw(st.booleans()),
                several=emits[:1] if kind == "several" else (),
            )
        )
        events += emits
    nodes = tuple(event_node(name, handlers) for name in events)
    return Graph(("s",), tuple(handlers), nodes, (), ("t",))


def choices(handler):
    """Every bag of events that one call may emit."""
    single = [Counter({name: 1}) for name in handler.emits if name not in handler.several]
    several = [
        Counter(dict(zip(handler.several, counts, strict=True)))
        for counts in product(range(5), repeat=len(handler.several))
    ]
    return [*single, *several, *([Counter()] if handler.may_emit_nothing else [])]


def sagas(graph):
    """The events of every saga: of every choice in every call. A join is called once; of four calls and more, four count."""
    bags = {(("e0", 1),)}
    for handler in graph.handlers:  # causes come before effects
        after = set()
        for bag in map(dict, bags):
            come = [name for name in handler.consumes if name in bag]
            calls = int(len(come) >= handler.rule.need) if handler.rule else sum(bag[name] for name in come)
            for chosen in combinations_with_replacement(choices(handler), min(calls, 4)):
                emitted = sum(chosen, Counter(bag))
                after.add(tuple(sorted((name, min(count, 4)) for name, count in emitted.items() if count)))
        bags = after
    return {frozenset(dict(bag)) for bag in bags}


@given(choreographies())
@settings(max_examples=100)
def test_what_is_said_to_come_together_is_what_does(graph):
    model, all_sagas = Model(graph), sagas(graph)
    for one, other in product([event.name for event in graph.events], repeat=2):
        if one != other:
            truly = any({one, other} <= saga for saga in all_sagas)
            assert not truly or model.together.meet(one, other), "what it denies cannot be"
            found = model.walks.example(Goal(one), Goal(other))
            assert (found is not None) == truly
            if found:
                assert any({*found[0][::2], *found[1][::2]} <= saga for saga in all_sagas), "a saga takes both paths"


@given(choreographies())
@settings(max_examples=100)
def test_handlers_are_said_to_be_called_if_they_are(graph):
    model, all_sagas = Model(graph), sagas(graph)
    fires = {way.handler.id for way in model.ways if model.together.fires(way)}
    for handler in graph.handlers:
        needed = handler.rule.need if handler.rule else 1
        if any(len(saga & set(handler.consumes)) >= needed for saga in all_sagas):
            assert handler.id in fires


@given(choreographies())
@settings(max_examples=100)
def test_an_event_to_avoid_is_in_no_path(graph):
    model = Model(graph)
    names = [event.name for event in graph.events]
    for one, avoided in product(names, names[1:]):
        found = model.walks.example(Goal(one, frozenset({avoided})))
        if found and one != avoided:
            assert avoided not in found[0]


def test_an_example_names_the_handler_that_is_asked_for():
    handlers = [handler_node(0, ("e0",), ("a",)), handler_node(1, ("e0",), ("a",))]
    graph = Graph(("s",), tuple(handlers), (event_node("e0", handlers), event_node("a", handlers)), (), ("t",))
    model = Model(graph)
    assert model.walks.example(Goal("a", by="s.h1")) == (("e0", "s.h1", "a"),)
    assert model.walks.example(Goal("a", by="s.h2")) is None


@pytest.mark.parametrize(("steps", "found"), [(100, True), (3, False)])
def test_a_search_gives_up_after_its_steps(steps, found):
    handlers = [handler_node(number, (f"e{number}",), (f"e{number + 1}",)) for number in range(10)]
    graph = Graph(("s",), tuple(handlers), tuple(event_node(f"e{n}", handlers) for n in range(11)), (), ("t",))
    model = Model(graph, steps=steps)
    assert (model.walks.example(Goal("e10")) is not None) is found
    assert model.walks.gave_up == (not found)
    model.walks.example(Goal("e10"))
    assert model.walks.gave_up == (not found), "the same question is not asked again"


def test_all_questions_together_have_bounds_too():
    from choreo.check.walk import Walks

    handlers = [handler_node(number, (f"e{number}",), (f"e{number + 1}",)) for number in range(10)]
    graph = Graph(("s",), tuple(handlers), tuple(event_node(f"e{n}", handlers) for n in range(11)), (), ("t",))
    walks = Walks(Model(graph).ways, ["e0"], lambda *_: False, lambda *_: True, in_all=15)
    assert walks.example(Goal("e10")) is not None
    assert walks.example(Goal("e9")) is None
    assert walks.gave_up == 1


def test_a_chain_of_wide_joins_is_given_up_and_not_fatal():
    sides = tuple(f"side{number}" for number in range(30))
    handlers = [
        handler_node(0, ("e0",), ("e1", *sides), several=("e1", *sides)),
        *(
            handler_node(number, (f"e{number}", *sides), (f"e{number + 1}",), join=len(sides) + 1)
            for number in range(1, 95)
        ),
    ]
    names = [*(f"e{number}" for number in range(96)), *sides]
    model = Model(
        Graph(("s",), tuple(handlers), tuple(event_node(name, handlers) for name in names), (), ("t",)), steps=10**6
    )
    assert model.walks.example(Goal("e95")) is None
    assert model.walks.gave_up == 1


def test_a_very_long_chain_is_given_up_and_not_fatal():
    handlers = [handler_node(number, (f"e{number}",), (f"e{number + 1}",)) for number in range(1500)]
    graph = Graph(("s",), tuple(handlers), tuple(event_node(f"e{n}", handlers) for n in range(1501)), (), ("t",))
    model = Model(graph)
    assert model.together.meet("e0", "e1500")
    assert model.walks.example(Goal("e1500")) is None
    assert model.walks.gave_up == 1
