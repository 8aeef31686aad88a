"""Payload fields that filters may name: the only ones that the tracker decodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from choreo.dlq.edit import data_of
from choreo.errors import ConfigurationError
from choreo.graph import Graph
from choreo.log.port import Record
from choreo.saga.sighting import Sighting
from choreo.wire import Codec

_LONGEST = 200
"""Characters of a value that are kept."""


class Fields:
    """The values of declared fields, of whatever records are read; a value that cannot be read is left out.

    Args:
        names: each as `EventType.field`, or `EventType.field.field` inside an object.

    Raises:
        ConfigurationError: a name is no such thing, or its event is not declared.
    """

    def __init__(self, names: Iterable[str], graph: Graph, codec: Codec) -> None:
        self._codec = codec
        self._fields: dict[str, list[str]] = {}
        for name in names:
            event, dot, field = name.partition(".")
            if not dot or not field or event not in graph.event:
                known = ", ".join(sorted(graph.event))
                why = f"no event is called {event!r}" if dot else ""
                remedy = f"write EventType.field; the events are {known}"
                raise ConfigurationError(f"{name!r} is no field that can be searchable", why=why, remedy=remedy)
            self._fields.setdefault(event, []).append(field)

    async def __call__(self, records: Sequence[Record], seen: Sequence[Sighting]) -> list[tuple[str, str, str]]:
        """The values in these records: (name, value, saga)."""
        wanted = {each.place: each for each in seen if each.kind == "event" and each.type_name in self._fields}
        found = []
        for record in records:
            each = wanted.get(record[:3])  # type: ignore[call-overload] # equal to its place
            if each is not None:
                data, _ = await data_of(self._codec, record)
                for field in self._fields[each.type_name]:
                    found += [(field, text, each.saga) for text in _texts(data, field.split("."))]
        return found


def _texts(data: Any, path: Sequence[str]) -> list[str]:
    """The values at a path, of each element where there is a list."""
    if isinstance(data, list):
        return [text for each in data for text in _texts(each, path)]
    if path:
        return _texts(data.get(path[0]), path[1:]) if isinstance(data, dict) else []
    if data is None or isinstance(data, dict):
        return []
    text = str(data).lower() if isinstance(data, bool) else str(data)[:_LONGEST]
    return [text.encode(errors="backslashreplace").decode().replace("\0", "\\0")]  # what any store can keep
