"""One plan, from its beginning to what is wrong at its end."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable

from hypothesis import assume

from tests.sagas.invariants import findings, observe
from tests.sagas.loop import StillLoop
from tests.sagas.plan import Plan
from tests.sagas.world import Ground, NeverAtRestError, World


def at_rest(ground: Ground, plan: Plan) -> list[str]:
    """Run a plan; what is wrong when nothing is under way any more, one sentence each."""
    folder = ground.folder / "world"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    async def run() -> list[str]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, StillLoop)
        world = World(ground, folder, plan, loop)
        await world.open()
        try:
            await world.run()
            found = findings(world, await observe(world))
        except NeverAtRestError as error:
            found = [f"everything comes to rest: {error}"]
        await world.close()
        return found

    with asyncio.Runner(loop_factory=StillLoop) as runner:
        return runner.run(run())


class Judge:
    """Asserts that plans end well.

    Of plans with the same chance only one is run as long as all end well: Hypothesis makes five of six by changing
    earlier ones a little, and a new one finds more. From the first that ends badly, it looks for a smaller one that does
    so, but not for ever.

    Args:
        patience: seconds for that.
    """

    def __init__(self, judge: Callable[[Plan], list[str]], patience: float) -> None:
        self._judge = judge
        self._patience = patience
        self._since: float | None = None
        self._seen: set[int] = set()
        self._bad: set[str] = set()

    def __call__(self, plan: Plan) -> None:
        """Judge one plan.

        Raises:
            AssertionError: it ends badly; says which invariants are broken.
        """
        if self._since is None:
            assume(plan.chance not in self._seen)
            self._seen.add(plan.chance)
        elif time.monotonic() > self._since + self._patience and repr(plan) not in self._bad:
            return
        try:
            found = self._judge(plan)
            assert not found, "\n".join(found)
        except BaseException:
            self._since = self._since or time.monotonic()
            self._bad.add(repr(plan))
            raise
