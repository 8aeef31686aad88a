"""Handlers are declared from source text, once with annotations as objects and once as text."""

import importlib.util
import itertools

import pytest

from choreo import DeclarationError

EVENTS = """
import typing
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Optional, Union
from choreo import Event, Failure, Service

class A(Event, topic="t", key="k"):
    k: str

class B(Event, topic="t", key="k"):
    k: str

class C(Failure, topic="t", key="k"):
    k: str

class Base(Event):
    k: str

class D(Base, topic="t", key="k"):
    pass

svc = Service("svc")
"""
_numbers = itertools.count()


@pytest.fixture(params=["", "from __future__ import annotations\n"], ids=["objects", "text"])
def declare(request, tmp_path):
    """Runs a module of events and one handler `f`; returns the handler, or what the lines after it name `result`."""

    def run(source):
        path = tmp_path / "declared.py"
        path.write_text(request.param + EVENTS + source)
        spec = importlib.util.spec_from_file_location(f"declared_{next(_numbers)}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.svc.handlers["f"]

    return run


def names(handler):
    return [cls.__name__ for cls in handler.emits.classes]


@pytest.mark.parametrize(
    ("annotation", "classes", "shapes"),
    [
        ("None", [], {"nothing"}),
        ("A", ["A"], {"one"}),
        ("A | B", ["A", "B"], {"one"}),
        ("Union[B, A]", ["B", "A"], {"one"}),
        ("A | None", ["A"], {"one", "nothing"}),
        ("Optional[A]", ["A"], {"one", "nothing"}),
        ("Annotated[A, 'note'] | None", ["A"], {"one", "nothing"}),
        ("list[A]", ["A"], {"many"}),
        ("list[A | C]", ["A", "C"], {"many"}),
        ("typing.List[A]", ["A"], {"many"}),
        ("tuple[A, B]", ["A", "B"], {"many"}),
        ("tuple[A, ...]", ["A"], {"many"}),
        ("list[A] | B | None", ["A", "B"], {"many", "one", "nothing"}),
        ("tuple[A, B] | C", ["A", "B", "C"], {"many", "one"}),
        ("'A'", ["A"], {"one"}),
        ("list['A']", ["A"], {"many"}),
    ],
)
def test_the_return_annotation_declares_what_is_emitted(declare, annotation, classes, shapes):
    handler = declare(f"@svc.on(A)\nasync def f(a: A) -> {annotation}: ...")
    assert names(handler) == classes
    assert {shape for shape in ("nothing", "one", "many") if getattr(handler.emits, shape)} == shapes


@pytest.mark.parametrize(
    ("parameters", "takes_context"),
    [
        ("a: A", False),
        ("a", False),
        ("a: Any", False),
        ("a: Event", False),
        ("a: A | B", False),
        ("a: Annotated[A, 1] | None", False),
        ("a: A, ctx", True),
        ("a: A, /, ctx: object", True),
        ("a: A, ctx=None", True),
    ],
)
@pytest.mark.parametrize("kind", ["async def", "def"])
def test_parameters_a_handler_may_have(declare, parameters, takes_context, kind):
    handler = declare(f"@svc.on(A)\n{kind} f({parameters}) -> None: ...")
    assert handler.takes_context is takes_context
    assert handler.is_async is (kind == "async def")


def test_a_base_class_parameter_takes_its_heirs(declare):
    handler = declare("@svc.on(D)\ndef f(d: Base) -> None: ...")
    assert [cls.__name__ for cls in handler.consumes] == ["D"]


def test_several_events_of_one_handler(declare):
    handler = declare("@svc.on(A, B, C)\nasync def f(e: A | B | C) -> D | None: ...")
    assert [cls.__name__ for cls in handler.consumes] == ["A", "B", "C"]
    assert names(handler) == ["D"]


def test_the_context_may_be_annotated(declare):
    handler = declare("from choreo import Settings\n@svc.on(A)\nasync def f(a: A, ctx: Settings) -> None: ...")
    assert handler.takes_context


def test_no_return_annotation_is_refused(declare):
    with pytest.raises(DeclarationError, match=r"handler svc\.f has no return annotation: .* \(write -> SomeEvent"):
        declare("@svc.on(A)\nasync def f(a: A): ...")


@pytest.mark.parametrize(
    ("annotation", "named"),
    [
        ("int", "int"),
        ("A | str", "str"),
        ("list[int]", "int"),
        ("tuple[A, int]", "int"),
        ("list", "list"),
        ("Event", "Event"),
        ("Base", "Base"),
        ("Any", "Any"),
        ("set[A]", r"set\["),
        ("Sequence[A]", r".*Sequence\["),
        ("dict[str, A]", r"dict\["),
        ("AsyncIterator[A]", r".*AsyncIterator\["),
        ("list[None]", "None"),
        ("list[list[A]]", r"list\["),
    ],
)
def test_emitting_what_is_no_event_is_refused(declare, annotation, named):
    with pytest.raises(DeclarationError, match=rf"handler svc\.f emits {named}.*, which is no event \(return classes"):
        declare(f"@svc.on(A)\ndef f(a: A) -> {annotation}: ...")


@pytest.mark.parametrize("source", ["def f(a: A) -> list[A]: yield a", "async def f(a: A) -> A: yield a"])
def test_yielding_is_refused(declare, source):
    with pytest.raises(DeclarationError, match=r"handler svc\.f yields its events \(return them as a list"):
        declare(f"@svc.on(A)\n{source}")


@pytest.mark.parametrize("annotation", ["B", "int", "list[A]", "None", "D | C", "dict"])
def test_a_parameter_that_does_not_take_the_event_is_refused(declare, annotation):
    with pytest.raises(
        DeclarationError, match=r"handler svc\.f is declared on A, but .* 'a' takes .*\(let the decorator"
    ):
        declare(f"@svc.on(A)\ndef f(a: {annotation}) -> None: ...")


def test_a_parameter_that_takes_only_some_of_the_events_is_refused(declare):
    with pytest.raises(DeclarationError, match=r"handler svc\.f is declared on C, but its parameter 'a' takes .*A \| "):
        declare("@svc.on(A, B, C)\ndef f(a: A | B) -> None: ...")


@pytest.mark.parametrize("parameters", ["", "a, b, c", "*events", "a, *rest", "a, *, ctx", "a, **options", "*, a"])
def test_other_parameters_are_refused(declare, parameters):
    with pytest.raises(
        DeclarationError, match=r"handler svc\.f takes \(.*\(a handler takes \(event\) or \(event, ctx\)"
    ):
        declare(f"@svc.on(A)\ndef f({parameters}) -> None: ...")


@pytest.mark.parametrize("annotation", ["'Missing'", "'typing.Missing'", "'A |'", "'list[Missing]'"])
def test_an_annotation_that_cannot_be_read_is_refused(declare, annotation):
    with pytest.raises(
        DeclarationError, match=r"handler svc\.f has an annotation that cannot be read: .*\(define event"
    ):
        declare(f"@svc.on(A)\ndef f(a: A) -> {annotation}: ...")


def test_a_class_hidden_behind_type_checking_is_named(declare):
    with pytest.raises(DeclarationError, match=r"cannot be read: name 'Paid' is not defined \(.*outside TYPE_CHECKING"):
        declare("if typing.TYPE_CHECKING:\n    from shop import Paid\n@svc.on(A)\ndef f(a: A) -> 'Paid': ...")


@pytest.mark.parametrize("expression", ["print", "5", "A", "__import__('functools').partial(print)"])
def test_what_is_no_plain_function_is_refused(declare, expression):
    with pytest.raises(DeclarationError, match=r"handler svc\.f .*\((wrap it in a def|a handler takes)"):
        declare(f"svc.on(A, name='f')({expression})")
