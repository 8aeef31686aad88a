"""Reading a handler's signature: what it takes and, from its return annotation, what it emits."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from choreo.errors import DeclarationError
from choreo.events import Event, is_event_class

_LISTS = {list, Sequence, Iterable, Collection}


@dataclass(frozen=True)
class Emits:
    """What a handler may return.

    Attributes:
        classes: the events it emits, in the order of its annotation.
        nothing: whether it may return None.
        one: whether it may return a single event.
        several: those that it may return in a list or tuple (fan-out).
    """

    classes: tuple[type[Event], ...]
    nothing: bool
    one: bool
    several: tuple[type[Event], ...] = ()

    @property
    def many(self) -> bool:
        """Whether it may return a list or tuple of events."""
        return bool(self.several)


def read_signature(function: Callable[..., Any], where: str, *names: str) -> inspect.Signature:
    """The function's signature with its annotations evaluated.

    Args:
        names: what it takes before `ctx`, for people; an event unless given.

    Raises:
        DeclarationError: it is no function, takes the wrong number of arguments, or an annotation cannot be read.
    """
    if not inspect.isroutine(function):
        raise DeclarationError(f"{where} is {function!r}, which is no function", remedy="wrap it in a def or async def")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DeclarationError(f"{where} yields its events", remedy="return them as a list, and write -> list[...]")
    signature = inspect.signature(function)
    names = names or ("event",)
    positional = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    parameters = list(signature.parameters.values())
    required = [p for p in parameters if p.default is p.empty]
    if not len(names) <= len(required) <= len(parameters) <= len(names) + 1 or any(
        p.kind not in positional for p in parameters
    ):
        takes = ", ".join(names)
        raise DeclarationError(f"{where} takes {signature}", remedy=f"a handler takes ({takes}) or ({takes}, ctx)")
    hints = _hints(function, where)
    return signature.replace(
        parameters=[p.replace(annotation=hints.get(p.name, p.annotation)) for p in parameters],
        return_annotation=hints.get("return", signature.return_annotation),
    )


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Its annotations, evaluated also where they are text (`from __future__ import annotations`, forward references)."""
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, SyntaxError, TypeError) as error:
        raise DeclarationError(
            f"{where} has an annotation that cannot be read: {error}",
            remedy="define event classes at module level, above the handler, and import them outside TYPE_CHECKING",
        ) from error


def check_accepts(
    parameter: inspect.Parameter,
    declared: tuple[type[Event], ...],
    where: str,
    *,
    in_list: bool = False,
    or_none: bool = False,
) -> None:
    """Check that a parameter's annotation, if there is one, fits every declared event.

    Args:
        in_list: whether it is handed a list of them.
        or_none: whether it is handed None where there is none.

    Raises:
        DeclarationError: an event the decorator names is not among what the parameter accepts.
    """
    if parameter.annotation is parameter.empty:
        return
    whole = _alternatives(parameter.annotation)
    alternatives = _items(whole) if in_list else whole
    accepted = tuple(cls for cls in alternatives if isinstance(cls, type))
    for event in declared:
        if Any not in alternatives and not issubclass(event, accepted):
            raise DeclarationError(
                f"{where} is declared on {f'list[{event.__name__}]' if in_list else event.__name__}, "
                f"but its parameter {parameter.name!r} takes {_name(parameter.annotation)}",
                remedy="let the decorator and the annotation name the same events",
            )
    if or_none and not in_list and not {None, type(None), Any} & set(whole):
        raise DeclarationError(
            f"{where} may be called without {declared[0].__name__}, but its parameter {parameter.name!r} takes no None",
            remedy=f"annotate it as {declared[0].__name__} | None",
        )


def accepted_events(
    parameter: inspect.Parameter, candidates: tuple[type[Event], ...]
) -> tuple[tuple[type[Event], ...], bool]:
    """Which of the candidates a parameter takes (all, if it has no annotation), and whether it takes a list of them."""
    if parameter.annotation is parameter.empty:
        return candidates, False
    whole = _alternatives(parameter.annotation)
    items = _items(whole)
    alternatives = items or whole
    accepted = tuple(cls for cls in alternatives if isinstance(cls, type))
    return tuple(cls for cls in candidates if Any in alternatives or issubclass(cls, accepted)), bool(items)


def _items(alternatives: tuple[Any, ...]) -> tuple[Any, ...]:
    """What the lists and sequences among these hold."""
    lists = (part for part in alternatives if get_origin(part) in _LISTS)
    return tuple(member for part in lists for item in get_args(part) for member in _alternatives(item))


def emits_of(signature: inspect.Signature, where: str) -> Emits:
    """What the return annotation declares: an event, a union, None, `list[...]` or `tuple[...]` of events.

    Raises:
        DeclarationError: there is none, or it names something that is no event.
    """
    annotation = signature.return_annotation
    if annotation is signature.empty:
        raise DeclarationError(
            f"{where} has no return annotation",
            why="it declares what the handler emits",
            remedy="write -> SomeEvent, -> A | B, -> list[A], or -> None if it emits nothing",
        )
    classes: dict[type[Event], None] = {}
    several: dict[type[Event], None] = {}
    nothing = one = False
    for part in _alternatives(annotation):
        if part is None or part is type(None):
            nothing = True
        elif get_origin(part) in {list, tuple}:
            items = [item for item in get_args(part) if item is not Ellipsis]
            several.update(dict.fromkeys(_event_class(cls, where) for item in items for cls in _alternatives(item)))
            classes.update(several)
        else:
            one = True
            classes[_event_class(part, where)] = None
    return Emits(tuple(classes), nothing, one, tuple(several))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    """The members of a union, however nested and annotated, or the annotation alone."""
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in {Union, types.UnionType}:
        return tuple(member for part in get_args(annotation) for member in _alternatives(part))
    return (annotation,)


def _event_class(candidate: Any, where: str) -> type[Event]:
    if not is_event_class(candidate):
        raise DeclarationError(
            f"{where} emits {_name(candidate)}, which is no event",
            remedy="return classes that derive from choreo.Event with topic= and key=, or None",
        )
    found: type[Event] = candidate
    return found


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
