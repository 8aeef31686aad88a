"""Events: immutable pydantic models that name their topic and key, and the metadata that travels with them."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    ForwardRef,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeGuard,
    Union,
    Unpack,
    get_args,
    get_origin,
)
from uuid import UUID

import pydantic

from choreo.errors import DeclarationError, EncodeError
from choreo.routing import Route, topics_of

_TYPE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")


Outcome: TypeAlias = Literal["completed", "failed"]
"""How a saga ends: what was wanted has happened, or everything is undone."""


class Contract(NamedTuple):
    """What an event class declares about its records.

    Attributes:
        type_name: the event's type on the wire (`ce_type`) and the full name of its Avro record.
        topics: where its records go; the first is the one unless `choose` says another.
        key: the field whose value is the record's key, so that records of one key keep their order.
        failure: whether it ends a branch of its saga unsuccessfully.
        choose: names the topic of one event; None where there is only one.
        ends: the outcome that it gives its saga; None if it goes on.
    """

    type_name: str
    topics: tuple[str, ...]
    key: str
    failure: bool
    choose: Callable[[Any], str] | None = None
    ends: Outcome | None = None


def _check_type_name(cls: type[Event], type_name: str) -> None:
    if not _TYPE_NAME.match(type_name):
        raise DeclarationError(
            f"event {cls.__qualname__} has the type name {type_name!r}, which is no legal Avro name",
            remedy="use letters, digits and '_', not starting with a digit, optionally with dots between such names",
        )


def _check_key(cls: type[Event], key: str) -> None:
    field = cls.model_fields.get(key)
    if field is None:
        known = ", ".join(cls.model_fields) or "none"
        raise DeclarationError(
            f"event {cls.__qualname__} names key={key!r}, but has no such field", remedy=f"its fields are: {known}"
        )
    if not field.is_required() or allows_none(field.annotation):
        raise DeclarationError(
            f"event {cls.__qualname__} has the optional key field {key!r}",
            why="a record without its key would lose its order",
            remedy="make the field required and not None",
        )
    if not _is_key_type(field.annotation):
        raise DeclarationError(
            f"event {cls.__qualname__} has the key field {key!r} of type {field.annotation}",
            why="equal keys must have one text, in every language",
            remedy="use a field of type str, int or UUID",
        )


def allows_none(annotation: Any) -> bool:
    """Whether a field of this type may be None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return allows_none(get_args(annotation)[0])
    if origin in {Union, types.UnionType}:
        return any(allows_none(arg) for arg in get_args(annotation))
    return annotation in {None, type(None), Any}


def _is_key_type(annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _is_key_type(get_args(annotation)[0])
    if origin is Literal:
        return all(_is_key_type(type(value)) for value in get_args(annotation))
    if hasattr(annotation, "__supertype__"):  # a NewType
        return _is_key_type(annotation.__supertype__)
    if isinstance(annotation, ForwardRef):  # not known yet; pydantic resolves it later
        return True
    return (
        isinstance(annotation, type) and issubclass(annotation, (str, int, UUID)) and not issubclass(annotation, Enum)
    )


def _is_mutable(default: Any) -> bool:
    """Whether a default can change under us, or holds something that can: what is immutable all through has a hash."""
    try:
        hash(default)
    except TypeError:
        return True
    return False


def _check_defaults(cls: type[Event]) -> None:
    for name, field in cls.model_fields.items():
        if _is_mutable(field.default):
            raise DeclarationError(
                f"event {cls.__qualname__} has a mutable default for field {name!r}",
                why="events are immutable",
                remedy=f"write {name}: ... = Field(default_factory=...), or use a tuple",
            )


def _check_ends(cls: type[Event], ends: Outcome | None) -> None:
    if ends not in {None, "completed", "failed"}:
        raise DeclarationError(
            f"event {cls.__qualname__} has ends={ends!r}", remedy='write ends="completed" or ends="failed"'
        )
    if ends == "completed" and issubclass(cls, Failure):
        raise DeclarationError(f"event {cls.__qualname__} is a failure and ends its saga as completed")


class Event(pydantic.BaseModel):
    """Base of all events: something that happened, immutable.

    A class that names a topic and a key is an event; one that names neither is an abstract base for others.

        class OrderPlaced(Event, topic="orders", key="order_id"):
            order_id: str
            total: Decimal

    Class arguments:
        topic: the topic of its records, or `choreo.route(...)` where it depends on the event.
        key: the field that orders them; a required field of type str, int or UUID.
        name: the type's name on the wire; the class name unless given.
        ends: the outcome that it gives its saga, "completed" or "failed"; a saga has one. Unless given, the saga goes on.

    Raises:
        DeclarationError: at import, when the key is missing or optional, a default is mutable, or a name is not legal.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    contract: ClassVar[Contract]

    def __init_subclass__(
        cls,
        *,
        topic: str | Route | None = None,
        key: str | None = None,
        name: str | None = None,
        ends: Outcome | None = None,
        **kwargs: Unpack[pydantic.ConfigDict],
    ) -> None:
        """Take the class arguments; they are read below, once pydantic knows the fields."""
        if kwargs:  # pydantic has taken out its own by now
            raise DeclarationError(
                f"event {cls.__qualname__} has an unknown class argument: {', '.join(kwargs)}",
                remedy="an event names topic=, key= and, where they are of use, name= and ends=",
            )
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        topic: str | Route | None = None,
        key: str | None = None,
        name: str | None = None,
        ends: Outcome | None = None,
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "contract" in cls.model_fields:
            raise DeclarationError(
                f"event {cls.__qualname__} has a field 'contract', a name that choreo keeps for itself",
                remedy="rename the field",
            )
        _check_defaults(cls)
        if topic is None and key is None:
            if "contract" in cls.__dict__ or any("contract" in base.__dict__ for base in cls.__mro__[1:]):
                raise DeclarationError(
                    f"event {cls.__qualname__} inherits from an event that has a topic",
                    remedy=f"name its own: class {cls.__name__}(..., topic=..., key=...)",
                )
            return
        if topic is None or key is None:
            missing = "topic" if topic is None else "key"
            raise DeclarationError(
                f"event {cls.__qualname__} names no {missing}", remedy="an event names both topic= and key="
            )
        topics = topics_of(topic, f"event {cls.__qualname__}")
        _check_type_name(cls, name or cls.__name__)
        _check_key(cls, key)
        _check_ends(cls, ends)
        choose = topic.choose if isinstance(topic, Route) else None
        cls.contract = Contract(name or cls.__name__, topics, key, issubclass(cls, Failure), choose, ends)


class Failure(Event):
    """An event that ends a branch of its saga unsuccessfully, such as a declined payment."""


def is_event_class(candidate: object) -> TypeGuard[type[Event]]:
    """Whether `candidate` is a concrete event class: an `Event` that names its topic and key."""
    return isinstance(candidate, type) and issubclass(candidate, Event) and hasattr(candidate, "contract")


def origin_of(event_class: type[Event]) -> type[Event]:
    """The class that this one is a view of, since it derives from it and has its type name; itself if it is none."""
    name = event_class.contract.type_name
    return [cls for cls in event_class.__mro__ if is_event_class(cls) and cls.contract.type_name == name][-1]


def key_of(event: Event) -> bytes:
    """The record key of an event: its key field as UTF-8 text."""
    return str(getattr(event, event.contract.key)).encode()


def topic_of(event: Event) -> str:
    """The topic that an event is published to.

    Raises:
        EncodeError: its class's route failed, or named a topic that is not among its own.
    """
    _, topics, _, _, choose, _ = event.contract
    if choose is None:
        return topics[0]
    try:
        topic = choose(event)
    except Exception as error:
        what = f"the route of event {type(event).__qualname__} failed"
        raise EncodeError(what, why=f"{type(error).__name__}: {error}") from error
    if topic not in topics:
        raise EncodeError(
            f"the route of event {type(event).__qualname__} named topic {topic!r}",
            why=f"it is not among {', '.join(topics)}",
            remedy="let `choose` name one of these, or add it to among=(...)",
        )
    return topic


class Metadata(NamedTuple):
    """What travels with an event in its record's headers (CloudEvents 1.0 names in brackets).

    Attributes:
        event_id: unique with `source`; the same again when the same work is done again (`ce_id`).
        type_name: the event's type (`ce_type`); empty if the producer wrote none.
        source: the service or program that emitted it (`ce_source`).
        time: when it was emitted, RFC 3339 text with zone (`ce_time`).
        correlation_id: the saga it belongs to (`ce_correlationid`).
        causation_id: the event that caused it; None for the first of a saga (`ce_causationid`).
        traceparent, tracestate: W3C trace context, None if there is none.
        compensates: the event whose effect was undone when this one was emitted; None if none was (`ce_compensates`).
        parent_id: the saga in which this one was started, None if it came from outside (`ce_parentid`); on the first
            event of a saga.
    """

    event_id: str
    type_name: str
    source: str
    time: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    compensates: str | None = None
    parent_id: str | None = None
