"""Circles in a directed graph: one of the shortest of each strongly connected part."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence


def shortest_cycles(following: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """A shortest cycle through the first node (by name) of each part in which every node leads to every other."""
    for part in _parts(following):
        first = min(part)
        if len(part) > 1 or first in following[first]:
            yield _cycle(following, first, part)


def _cycle(following: Mapping[str, Sequence[str]], first: str, part: frozenset[str]) -> tuple[str, ...]:
    before: dict[str, str] = {}
    waiting = deque([first])
    while first not in before:
        node = waiting.popleft()
        for other in following[node]:
            if other in part and other not in before:
                before[other] = node
                waiting.append(other)
    path = [before[first]]
    while path[-1] != first:
        path.append(before[path[-1]])
    return tuple(reversed(path))


def _parts(following: Mapping[str, Sequence[str]]) -> list[frozenset[str]]:
    """Tarjan's strongly connected components, without recursion: choreographies may be deep."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[frozenset[str]] = []
    done: set[str] = set()
    for root in following:
        work = [(root, iter(following[root]))] if root not in index else []
        while work:
            node, others = work[-1]
            if node not in index:
                index[node] = low[node] = len(index)
                stack.append(node)
            for other in others:
                if other not in index:
                    work.append((other, iter(following[other])))
                    break
                if other not in done:
                    low[node] = min(low[node], index[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    parts.append(frozenset(stack[at:]))
                    done |= parts[-1]
                    del stack[at:]
    return parts
