"""Questions over HTTP: who may ask, what comes back, what is refused, and that nothing breaks it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import jsonschema
import pytest

from choreo.errors import ConfigurationError, StoreUnavailableError
from choreo.observe.serving import served
from choreo.saga.questions import Change, Questions
from choreo.web.app import make_app
from choreo.web.token import token_from
from choreo.web.watching import events_of
from tests.questions.conftest import TOKEN, Server, asking

BASE = "/api/v1"


def get(server: Server, path: str, status: int = 200, **params: str) -> httpx2.Response:
    answer = httpx2.get(f"{server.url}{path}", params=params, headers=server.headers)
    assert answer.status_code == status, answer.text
    return answer


def problem(server: Server, path: str, status: int, **params: str) -> dict:
    answer = get(server, path, status, **params)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    return answer.json()


def test_nobody_is_answered_without_the_token(server: Server) -> None:
    paths = json.loads(get(server, "/api/openapi.json").text)["paths"]
    wrong = [{}, {"authorization": "Bearer x"}, {"authorization": f"Bearer {TOKEN}x"}, {"authorization": TOKEN},
             {"authorization": f"Basic {TOKEN}"}, {"authorization": f"Bearer {TOKEN[:-1]}"}]  # fmt: skip
    for path in [*paths, "/", "/nothing"]:
        for headers in wrong:
            answer = httpx2.get(server.url + path, headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert TOKEN not in answer.text


def test_every_answer_is_safe_to_open(server: Server) -> None:
    for path in ("/api/openapi.json", f"{BASE}/sagas", "/nothing"):
        headers = httpx2.get(server.url + path, headers=server.headers).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["cache-control"] == "no-store"


def test_nothing_can_be_changed(server: Server) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        answer = httpx2.request(method, f"{server.url}{BASE}/sagas", headers=server.headers)
        assert answer.status_code == 405
        assert answer.json()["title"] == "Nothing can be changed here"


def test_a_list_is_paged_to_its_end(server: Server) -> None:
    found, after = [], {}
    while True:
        page = get(server, f"{BASE}/sagas", limit="7", **after).json()
        assert len(page["sagas"]) <= 7
        found += [row["key"] for row in page["sagas"]]
        if page["after"] is None:
            break
        after = {"after": page["after"]}
    assert len(found) == len(set(found)) == 40


def test_filters_choose(server: Server) -> None:
    states = {row["state"] for row in get(server, f"{BASE}/sagas", filter="outcome = failed").json()["sagas"]}
    assert states == {"compensated"}
    (failed,) = get(server, f"{BASE}/sagas", filter="has dead_letters").json()["sagas"]
    assert (failed["key"], failed["state"]) == ("o-7-00040", "failed")
    assert "AccountClosedError" in failed["error"]
    assert get(server, f"{BASE}/sagas", filter="key = nobody").json() == {"sagas": [], "after": None}


def test_all_views_of_a_saga(server: Server) -> None:
    shown = get(server, f"{BASE}/sagas/o-7-00040").json()
    assert (shown["saga"]["state"], shown["saga"]["key"]) == ("failed", "o-7-00040")
    one = f"{BASE}/sagas/{shown['saga']['id']}"
    tree = get(server, f"{one}/tree").json()
    assert [row["status"] for row in tree if "loyalty.award" in row["handlers"] and row["kind"] == "duty"] == ["dead"]
    assert [row["types"] for row in tree if row["kind"] == "never"] == [["PointsEarned"]]
    assert {arrow["sender"] for arrow in get(server, f"{one}/sequence").json()} >= {"demo", "payments", "shipping"}
    assert {step["handler"] for step in get(server, f"{one}/timeline").json()} >= {"payments.charge", "loyalty.award"}
    assert {effect["status"] for effect in get(server, f"{one}/ledger").json()} == {"kept"}
    assert len(get(server, f"{one}/events").json()) == len(shown["saga"]["events"])
    record = get(server, f"{one}/events/OrderPlaced").json()["records"][0]
    assert (record["data"]["order_id"], record["schema"], record["version"]) == ("o-7-00040", "OrderPlaced", 1)
    pairs = get(server, f"{one}/diff/o-7-00001").json()["pairs"]
    assert [pair["what"] for pair in pairs if pair["first"]] == ["PointsEarned  loyalty.award"]


def test_a_saga_as_it_was(server: Server) -> None:
    saga = get(server, f"{BASE}/sagas/o-7-00001").json()["saga"]
    moment = saga["started_ms"] + 1
    then = get(server, f"{BASE}/sagas/o-7-00001", as_of=iso(moment)).json()
    assert (len(then["saga"]["events"]), then["now_ms"]) == (1, moment)
    assert "had not begun" in problem(server, f"{BASE}/sagas/o-7-00001", 404, as_of="2001-01-01")["detail"]


def iso(ms: int) -> str:
    from choreo.saga.views.lines import moment

    return moment(ms)


def test_numbers(server: Server) -> None:
    stats = get(server, f"{BASE}/stats").json()
    assert (stats["sagas"], sum(stats["states"].values()), stats["types"][0]["type"]) == (40, 40, "OrderPlaced")
    assert 0 < stats["types"][0]["p50_ms"] <= stats["types"][0]["p99_ms"]
    funnel = get(server, f"{BASE}/stats/OrderPlaced").json()
    assert funnel["steps"][0] == {"type": "OrderPlaced", "sagas": 40}
    assert "no saga begins with 'Nope'" in problem(server, f"{BASE}/stats/Nope", 404)["detail"]


def test_nobody_is_sent_elsewhere(server: Server) -> None:
    answer = httpx2.get(f"{server.url}{BASE}/sagas/", headers={**server.headers, "host": "evil.example"})
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_a_place_in_the_stream_that_never_was_is_refused(server: Server) -> None:
    headers = {**server.headers, "last-event-id": "-1"}
    answer = httpx2.get(f"{server.url}{BASE}/watch", headers=headers)
    assert (answer.status_code, answer.json()["title"]) == (400, "That cannot be asked")


@pytest.mark.parametrize("to", ["json", "ndjson", "mermaid", "mermaid-flow", "ocel", "html"])
def test_exports(server: Server, to: str) -> None:
    answer = get(server, f"{BASE}/sagas/o-7-00001/export", format=to)
    assert "o-7-00001" in answer.text or "OrderPlaced" in answer.text
    assert (answer.headers.get("content-disposition") == "attachment") is (to == "html")
    if to in {"json", "ndjson", "ocel"}:
        assert get(server, f"{BASE}/export", format=to, filter="state = compensated").text


@pytest.mark.parametrize(
    ("path", "params", "words"),
    [
        ("/sagas", {"filter": "stat = x"}, "did you mean state"),
        ("/sagas", {"limit": "501"}, "from 1 to 500"),
        ("/sagas", {"limit": "0"}, "from 1 to 500"),
        ("/sagas", {"limit": "x"}, "from 1 to 500"),
        ("/sagas", {"after": "nonsense"}, "no page ends at"),
        ("/sagas", {"lmit": "5"}, "there are: after, filter, limit"),
        ("/sagas/o-7-00001", {"as_of": "yesterday"}, "is no time"),
        ("/sagas/o-7-00001", {"as_of": "2999-01-01"}, "2999-01-01T00:00:00.000Z is in the future"),
        ("/watch", {"after": "nonsense"}, "no change has the id 'nonsense'"),
        ("/sagas/o-7-00001/export", {"format": "pdf"}, "choose one of"),
        ("/export", {"format": "html"}, "choose one of"),
        ("/stats", {"x": "1"}, "there are none"),
    ],
)
def test_what_cannot_be_asked_is_said(server: Server, path: str, params: dict, words: str) -> None:
    assert words in problem(server, BASE + path, 400, **params)["detail"]


def test_a_wrong_filter_says_where(server: Server) -> None:
    assert problem(server, f"{BASE}/sagas", 400, filter="state = stuck and x = 1")["at"] == 18


@pytest.mark.parametrize("path", ["/sagas/nobody", "/sagas/o-7-00001/events/Nothing", "/nothing", "/sagas/a/b/c/d"])
def test_what_is_not_there(server: Server, path: str) -> None:
    problem(server, BASE + path, 404)


def test_answers_are_as_the_document_says(server: Server) -> None:
    document = get(server, "/api/openapi.json").json()
    names = {"saga": "o-7-00040", "event": "OrderPlaced", "other": "o-7-00001", "type": "OrderPlaced"}
    checked = 0
    for path, item in document["paths"].items():
        content = item["get"]["responses"]["200"]["content"]
        schema = content.get("application/json", {}).get("schema")
        if schema is None:
            continue
        answer = get(server, path.format(**names)).json()
        jsonschema.validate(answer, {**schema, "components": document["components"]})
        checked += 1
    assert checked >= 11


def test_a_hundred_at_once(server: Server) -> None:
    paths = [
        f"{BASE}/sagas?filter=state+%3D+completed",
        f"{BASE}/sagas/o-7-00040",
        f"{BASE}/stats",
        f"{BASE}/sagas/o-7-00001/tree",
    ]

    def ask(number: int) -> int:
        with httpx2.Client(headers=server.headers, timeout=60) as client:
            return sum(
                client.get(server.url + paths[(number + turn) % len(paths)]).status_code == 200 for turn in range(4)
            )

    with ThreadPoolExecutor(100) as clients:
        assert sum(clients.map(ask, range(100))) == 400


async def test_what_takes_too_long_is_cut(shop_log: str) -> None:
    async with asking(shop_log) as questions:
        release = asyncio.Event()
        page = questions.store.page

        async def slow(*given, **named):
            await release.wait()
            return await page(*given, **named)

        questions.store.page = slow
        app = make_app(questions, TOKEN, time_limit=0.05)
        async with served(app, "127.0.0.1", 0) as port, httpx2.AsyncClient(headers=Server("", TOKEN).headers) as client:
            answer = await client.get(f"http://127.0.0.1:{port}{BASE}/sagas")
            assert answer.status_code == 503
            assert "takes longer than 0.05 s" in answer.json()["detail"]
            assert answer.headers["retry-after"] == "1"
            release.set()


async def test_a_bug_says_nothing_of_itself(shop_log: str, caplog: pytest.LogCaptureFixture) -> None:
    async with asking(shop_log) as questions:

        async def broken(*_, **__):
            raise ZeroDivisionError("a secret")

        questions.store.counts = broken
        async with served(make_app(questions, TOKEN), "127.0.0.1", 0) as port, httpx2.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{port}{BASE}/stats", headers=Server("", TOKEN).headers)
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_tokens() -> None:
    assert token_from("a" * 16) == ("a" * 16, False)
    made, is_new = token_from("")
    assert is_new
    assert len(made) >= 32
    for bad in ("short", "with space in its middle", "ümlaut-ümlaut-ümlaut"):
        with pytest.raises(ConfigurationError, match="cannot be a token"):
            token_from(bad)


async def test_a_port_that_is_taken_is_said(questions: Questions) -> None:
    async with served(make_app(questions, TOKEN), "127.0.0.1", 0) as port:
        with pytest.raises(ConfigurationError, match="is not to be had"):
            async with served(make_app(questions, TOKEN), "127.0.0.1", port):
                pass
    with pytest.raises(ConfigurationError, match="70000 is not to be had: ports end at 65535"):
        async with served(make_app(questions, TOKEN), "127.0.0.1", 70000):
            pass


async def test_a_store_that_goes_away_ends_the_stream(caplog: pytest.LogCaptureFixture) -> None:
    async def changes() -> AsyncIterator[Change]:
        raise StoreUnavailableError("the store gives no answer")
        yield

    assert [part async for part in events_of(changes())] == ["retry: 1000\n\n"]
    assert "a stream of changes ends: the store gives no answer" in caplog.text
