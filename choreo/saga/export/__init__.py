"""Sagas for other programs: JSON, NDJSON, Mermaid, OCEL 2.0 and a page of HTML that needs nothing else. Pure.

`export` writes sagas in one of `FORMATS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias, get_args

from choreo.errors import ConfigurationError
from choreo.graph import Graph
from choreo.saga.export import html, mermaid, ocel
from choreo.saga.export.plain import as_dict
from choreo.saga.model import Saga

Format: TypeAlias = Literal["json", "ndjson", "mermaid", "mermaid-flow", "ocel", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)


class _Writer(Protocol):
    def __call__(self, sagas: Sequence[Saga], graph: Graph, /) -> Iterator[str]:
        """The document in pieces."""


class Kind(NamedTuple):
    """A format: its media type, whether one document holds several sagas, and who writes it."""

    media_type: str
    several: bool
    write: _Writer


def _json(sagas: Sequence[Saga], graph: Graph) -> Iterator[str]:  # noqa: ARG001 - as all writers
    yield json.dumps([as_dict(saga) for saga in sagas], indent=2, ensure_ascii=False) + "\n"


def _ndjson(sagas: Iterable[Saga], graph: Graph) -> Iterator[str]:  # noqa: ARG001 - as all writers
    for saga in sagas:
        yield json.dumps(as_dict(saga), ensure_ascii=False) + "\n"


def _ocel(sagas: Sequence[Saga], graph: Graph) -> Iterator[str]:  # noqa: ARG001 - as all writers
    yield json.dumps(ocel.log(sagas), indent=2, ensure_ascii=False) + "\n"


def _sequence(sagas: Sequence[Saga], graph: Graph) -> Iterator[str]:  # noqa: ARG001 - as all writers
    yield mermaid.sequence(sagas[0]) + "\n"


def _flow(sagas: Sequence[Saga], graph: Graph) -> Iterator[str]:
    yield mermaid.flow(sagas[0], graph) + "\n"


def _html(sagas: Sequence[Saga], graph: Graph) -> Iterator[str]:
    yield html.page(sagas[0], graph)


KINDS: Mapping[Format, Kind] = {
    "json": Kind("application/json", True, _json),
    "ndjson": Kind("application/x-ndjson", True, _ndjson),
    "mermaid": Kind("text/vnd.mermaid", False, _sequence),
    "mermaid-flow": Kind("text/vnd.mermaid", False, _flow),
    "ocel": Kind("application/json", True, _ocel),
    "html": Kind("text/html", False, _html),
}


def export(sagas: Sequence[Saga], graph: Graph, to: Format) -> str:
    """A document with these sagas.

    Raises:
        ConfigurationError: the format shows one saga, and these are not one.
    """
    kind = KINDS[to]
    if not kind.several and len(sagas) != 1:
        several = [name for name, other in KINDS.items() if other.several]
        remedy = f"choose one of: {', '.join(several)}"
        raise ConfigurationError(f"{to} shows one saga, and these are {len(sagas)}", remedy=remedy)
    return "".join(kind.write(sagas, graph))
