"""The questions as HTTP asks them: paths, parameters, and what comes back. The OpenAPI document is made of these."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from choreo.saga.export import FORMATS, KINDS, export
from choreo.saga.export.plain import plain
from choreo.saga.filter_text import moment_of
from choreo.saga.model import Effect, SagaEvent
from choreo.saga.questions import Funnel, Questions, Shown, Stats, Told
from choreo.saga.questions.asking import MOST
from choreo.saga.views import diff, sequence, summary, timeline, tree
from choreo.web.answers import DiffAnswer, EventAnswer, ListAnswer, Listed, SagaAnswer, VerifyAnswer, WhyAnswer
from choreo.web.parameters import AS_OF, FILTER, SAGA, Parameter, limit

Values = Mapping[str, Any]
MOST_EXPORTED = 1000


class Document(NamedTuple):
    """An answer that is no JSON of ours."""

    text: str
    media_type: str


class Operation(NamedTuple):
    """A question.

    Attributes:
        result: the type of the answer; None if it is a document in a format that was asked for.
    """

    path: str
    name: str
    meaning: str
    parameters: Sequence[Parameter]
    result: Any
    answer: Callable[[Questions, Values], Awaitable[Any]]


async def _shown(questions: Questions, values: Values) -> Shown:
    return await questions.show(values["saga"], as_of=_moment(questions, values))


def _moment(questions: Questions, values: Values) -> int | None:
    as_of = values["as_of"]
    return None if as_of is None else moment_of(as_of, questions.now())


async def _list(questions: Questions, values: Values) -> ListAnswer:
    page = await questions.list(values["filter"] or "", limit=values["limit"], after=values["after"])
    return ListAnswer([Listed.of(row) for row in page.rows], page.after)


async def _show(questions: Questions, values: Values) -> SagaAnswer:
    shown = await _shown(questions, values)
    return SagaAnswer(shown.saga, shown.now_ms, summary.traces(shown.saga), shown.others, shown.notes)


async def _why(questions: Questions, values: Values) -> WhyAnswer:
    shown, sentences = await questions.why(values["saga"], as_of=_moment(questions, values))
    saga = shown.saga
    alive = {} if shown.as_of else await questions.groups(saga)
    return WhyAnswer(saga.id, saga.state, saga.reason, sentences, alive, shown.notes)


async def _verify(questions: Questions, values: Values) -> VerifyAnswer:
    saga, found = await questions.verify(values["saga"])
    return VerifyAnswer.of(1, [(saga, found)] if found else [])


async def _verify_all(questions: Questions, values: Values) -> VerifyAnswer:
    return VerifyAnswer.of(*await questions.verify_all(values["filter"] or "", limit=values["limit"]))


async def _tree(questions: Questions, values: Values) -> Sequence[tree.Row]:
    return tree.rows((await _shown(questions, values)).saga, questions.graph)


async def _sequence(questions: Questions, values: Values) -> Sequence[sequence.Arrow]:
    return sequence.arrows((await _shown(questions, values)).saga)


async def _timeline(questions: Questions, values: Values) -> Sequence[timeline.Step]:
    return timeline.steps((await _shown(questions, values)).saga)


async def _ledger(questions: Questions, values: Values) -> Sequence[Effect]:
    return (await _shown(questions, values)).saga.ledger


async def _events(questions: Questions, values: Values) -> Sequence[SagaEvent]:
    return (await _shown(questions, values)).saga.events


async def _event(questions: Questions, values: Values) -> EventAnswer:
    return EventAnswer(*await questions.record(values["saga"], values["event"]))


async def _diff(questions: Questions, values: Values) -> DiffAnswer:
    left, right = [(await questions.show(values[name])).saga for name in ("saga", "other")]
    return DiffAnswer(left.id, right.id, diff.diff(left, right, questions.graph))


async def _stats(questions: Questions, _: Values) -> Stats:
    return await questions.stats()


async def _funnel(questions: Questions, values: Values) -> Funnel:
    return await questions.funnel(values["type"])


async def _export(questions: Questions, values: Values) -> Document:
    return await _written([(await _shown(questions, values)).saga], questions, values["format"])


async def _export_all(questions: Questions, values: Values) -> Document:
    sagas = await questions.sagas(values["filter"] or "", limit=values["limit"])
    return await _written(sagas, questions, values["format"])


async def _written(sagas: Sequence[Any], questions: Questions, to: Any) -> Document:
    written = await asyncio.to_thread(export, sagas, questions.graph, to)
    return Document(written, KINDS[to].media_type)


def _format(formats: Sequence[str]) -> Parameter:
    return Parameter(
        name="format", meaning="As what.", schema={"type": "string", "enum": [*formats], "default": "json"}
    )


_AFTER = Parameter(
    name="after", meaning="The `after` of the page before.", schema={"type": "string", "maxLength": 512, "examples": []}
)
_EVENT = Parameter(
    name="event", where="path", required=True,
    meaning="The event's id, the beginning or the end of it, or its type if there is one of it.",
)  # fmt: skip
_OTHER = Parameter(name="other", where="path", required=True, meaning="The other saga, by any of its names.")
_TYPE = Parameter(name="type", where="path", required=True, meaning="The type of a saga's first event.")
_ONE = [SAGA, AS_OF]

OPERATIONS: Sequence[Operation] = (
    Operation("/sagas", "list", "Sagas that fit a filter, the newest first.", [FILTER, limit(MOST, 50), _AFTER], ListAnswer, _list),
    Operation("/sagas/{saga}", "show", "A saga: events, duties, ledger, what is expected.", _ONE, SagaAnswer, _show),
    Operation("/sagas/{saga}/why", "why", "Why it is as it is, in plain sentences.", _ONE, WhyAnswer, _why),
    Operation("/sagas/{saga}/verify", "verify", "The laws checked over it.", [SAGA], VerifyAnswer, _verify),
    Operation("/sagas/{saga}/tree", "tree", "What came of what.", _ONE, Sequence[tree.Row], _tree),
    Operation("/sagas/{saga}/sequence", "sequence", "Who told whom.", _ONE, Sequence[sequence.Arrow], _sequence),
    Operation("/sagas/{saga}/timeline", "timeline", "Where the time went.", _ONE, Sequence[timeline.Step], _timeline),
    Operation("/sagas/{saga}/ledger", "ledger", "What its steps have done, and what has undone it.", _ONE, Sequence[Effect], _ledger),
    Operation("/sagas/{saga}/events", "events", "Its events, causes before effects.", _ONE, Sequence[SagaEvent], _events),
    Operation("/sagas/{saga}/events/{event}", "event", "What an event's records say.", [SAGA, _EVENT], EventAnswer, _event),
    Operation("/sagas/{saga}/diff/{other}", "diff", "Two sagas beside each other.", [SAGA, _OTHER], DiffAnswer, _diff),
    Operation("/sagas/{saga}/export", "export", "A saga for other programs.", [*_ONE, _format(FORMATS)], None, _export),
    Operation(
        "/export", "exportAll", "Sagas for other programs.",
        [FILTER, limit(MOST_EXPORTED, 100), _format([name for name in FORMATS if KINDS[name].several])], None, _export_all,
    ),
    Operation(
        "/verify", "verifyAll", "The laws checked over sagas that fit a filter.",
        [FILTER, limit(MOST_EXPORTED, 100)], VerifyAnswer, _verify_all,
    ),
    Operation("/stats", "stats", "How many sagas are how, and how long they take.", [], Stats, _stats),
    Operation("/stats/{type}", "funnel", "How far the newest sagas of a type have come.", [_TYPE], Funnel, _funnel),
)  # fmt: skip


def as_json(answer: Any) -> Any:
    """The answer as JSON knows it."""
    return plain(answer)


__all__ = ["OPERATIONS", "Document", "Operation", "Told", "as_json"]
