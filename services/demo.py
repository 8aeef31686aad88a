"""What `choreo demo NAME` asks of a flow: a module `services/NAME/demo.py` with one function, `run`.

    async def run(settings: Settings, *, count: int = 200, seed: int = 7, duplicates: float = 0.05) -> DemoResult: ...

- `settings` name the log and fresh stores (`sqlite:///folder/{service}.db`); missing topics may be created. The log may hold what
  earlier demos wrote, so let the services begin at its present end: `services.trial.staged` does.
- `count` is how many sagas (or whatever the flow is made of) to start, `seed` draws them, `duplicates` is the share of events
  to publish twice. The command leaves out what the user did not give, so the defaults are the flow's own.
- It starts the flow's services in this process, publishes, waits until all has come to rest, and compares what the
  services' stores hold with what must have come of it. What is wrong are `findings`, and make the command fail.
- A service that cannot go on is an exception: `services.trial.unless_failed` raises it.

Nothing needs to be registered: a package of `services/` with such a module is a demo. `choreo demo` alone is the shop's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """What came of a demo.

    Attributes:
        title: one line: what was at work.
        counts: what is shown, in this order: what was counted (up to 50 characters), and its number or a short text.
        verdict: one line that is shown when nothing is wrong.
        findings: what is wrong, one sentence each.
        look: commands to look at next: what each shows, and the command line. A leading `choreo` becomes the one that works here.
        sagas: business keys of sagas to show with `choreo saga show`; the last one also with `choreo saga why`.
        data: what `--json` prints, by names that programs can rely on; `findings` is added.
    """

    title: str
    counts: Mapping[str, int | float | str]
    verdict: str
    findings: Sequence[str]
    look: Mapping[str, str]
    sagas: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
