"""`choreo tracker run --http` and `choreo tracker serve`, as processes."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

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


async def refused(*arguments: str, command: str = "serve", port: int = 0, **environment: str) -> str:
    """What `choreo tracker` says when it does not start."""
    command_line = [CHOREO, "tracker", command, "services.shop", "--http", str(port), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command_line, cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    return said.decode()


async def test_a_token_that_can_be_guessed_is_refused(shop_log: str, tmp_path: Path) -> None:
    store = tmp_path / "tracker.db"
    store.touch()  # it is not looked at
    said = await refused("--log", shop_log, "--store", f"sqlite:///{store}", CHOREO_TRACKER_TOKEN="short")  # noqa: S106 - opens nothing
    assert said.startswith("choreo: CHOREO_TRACKER_TOKEN cannot be a token (take 16 or more letters and digits")


async def test_without_a_store_there_is_nothing_to_serve(shop_log: str, tmp_path: Path) -> None:
    said = await refused("--log", shop_log, "--store", f"sqlite:///{tmp_path}/none.db")
    assert said.startswith(f"choreo: there is no tracker's store sqlite:///{tmp_path}/none.db (let the tracker make it")
    assert said.count("\n") == 1


async def test_a_port_that_is_none_is_said_in_one_line(shop_log: str, tmp_path: Path) -> None:
    said = await refused("--log", shop_log, "--store", f"sqlite:///{tmp_path}/t.db", command="run", port=70000)
    assert said == "choreo: 127.0.0.1:70000 is not to be had: ports end at 65535 (choose a free port)\n"
