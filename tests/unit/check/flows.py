"""Choreographies written as text: events of one key are declared by a line, so that a flow is short."""

import linecache
import re
import sys
import types
from itertools import count

from choreo import Choreography, Service
from choreo.check import RULES, check

HEAD = "from choreo import Context, Event, Failure, Retry, Service, route\n"
EXAMPLES = {rule.code: rule.example for rule in RULES}
_numbers = count(1)


def services_of(source):
    """The services of a module with this source, which is kept where `inspect` and the check look for it."""
    name = f"flow_{next(_numbers)}"
    module = sys.modules[name] = types.ModuleType(name)
    text = HEAD + _with_events(source)
    linecache.cache[f"{name}.py"] = (len(text), None, text.splitlines(keepends=True), f"{name}.py")
    exec(compile(text, f"{name}.py", "exec"), module.__dict__)  # noqa: S102 - our own text
    return [value for value in vars(module).values() if isinstance(value, Service)]


def _with_events(source):
    """`event A, B on topic` and `failure C on topic ends failed` become classes with the key `id`."""
    pattern = re.compile(
        r"^(event|failure) (?P<names>[\w, ]+?) on (?P<topic>[\w.-]+)( ends (?P<ends>\w+))?$", re.MULTILINE
    )

    def classes(match):
        ends = f', ends="{match["ends"]}"' if match["ends"] else ""
        base = match[1].capitalize()
        return "\n".join(
            f'class {name.strip()}({base}, topic="{match["topic"]}", key="id"{ends}):\n    id: str'
            for name in match["names"].split(",")
        )

    return pattern.sub(classes, source)


def findings(source, code=None, **options):
    """What is found in a flow, by one rule or by all."""
    report = check(Choreography.of(services_of(source)), "flow", **options)
    return [finding for finding in report.findings if code in {None, finding.code}]


def changed(source, *edits):
    """The source with each first text replaced by each second one, which must change it."""
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    return source
