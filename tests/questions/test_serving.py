"""`choreo tracker run --http` and `choreo tracker serve`, as processes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.support import eventually

CHOREO = str(Path(sys.executable).parent / "choreo")
ROOT = Path(__file__).parents[2]
SAID = re.compile(
    r"questions are answered at (http://127\.0\.0\.1:\d+)/api/v1/sagas with (?:this token: (\S+)|the token of)"
)


@asynccontextmanager
async def answering(*arguments: str, **environment: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A process that answers; afterwards it is told to stop, and has to end well."""
    command = [CHOREO, "tracker", *arguments, "--http", "0"]
    given = {"PATH": "/usr/bin:/bin", "CHOREO_LOG_LEVEL": "error", **environment}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=given, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            said = SAID.search((await process.stderr.readline()).decode())
        assert said is not None
        token = said[2] or environment["CHOREO_TRACKER_TOKEN"]
        async with httpx2.AsyncClient(base_url=said[1], headers={"authorization": f"Bearer {token}"}) as client:
            yield client
        process.terminate()
        async with asyncio.timeout(60):
            await process.stderr.read()
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_tracker_answers_and_then_its_store_alone(shop_log: str, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/tracker.db"
    where = ("services.shop", "--log", shop_log, "--store", store)
    async with answering("run", *where) as client:

        async def sagas() -> bool:
            answer = await client.get("/api/v1/stats")
            assert answer.status_code == 200
            return answer.json()["states"] == {"completed": 28, "compensated": 11, "failed": 1}

        await eventually(sagas, "all sagas are there", patience=60)
    async with answering("serve", *where, CHOREO_TRACKER_TOKEN="a-token-for-this-test") as client:  # noqa: S106 - opens nothing
        why = (await client.get("/api/v1/sagas/o-7-00040/why")).json()
        assert why["state"] == "failed"
        assert any("choreo dlq redrive" in sentence for sentence in why["sentences"])


async def test_a_token_that_can_be_guessed_is_refused(shop_log: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        async with answering("serve", "services.shop", "--log", shop_log, CHOREO_TRACKER_TOKEN="short"):  # noqa: S106 - opens nothing
            pass
