"""The HTTP registry against a small server in this process that answers as it is told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from choreo.errors import (
    ConfigurationError,
    IncompatibleSchemaError,
    RegistryUnavailableError,
    SchemaNotFoundError,
)
from choreo.wire import http as http_module
from choreo.wire import open_registry
from choreo.wire.http import HttpRegistry

SCHEMA = {"type": "record", "name": "Order", "fields": []}
Answer = tuple[int, bytes]


class Server(ThreadingHTTPServer):
    """Answers each request from `answers`, keyed by method and path; keeps what was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, Answer | Callable[[], Answer]] = {}
        self.asked: list[tuple[str, str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _answer(self, body: Any) -> None:
        name = f"{self.command} {self.path}"
        self.server.asked.append((name, self.headers.get("Authorization", ""), body))
        answer = self.server.answers.get(name, (404, b'{"error_code": 40401, "message": "no"}'))
        status, content = answer() if callable(answer) else answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        """Tests keep quiet."""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
async def registry(server, monkeypatch):
    monkeypatch.delenv("CHOREO_REGISTRY_USER", raising=False)
    registry = HttpRegistry(server.url + "/")
    yield registry
    await registry.aclose()


POST = "POST /subjects/my-orders-Order/versions"


async def test_register_sends_the_schema(server, registry):
    server.answers[POST] = (200, b'{"id": 7}')
    assert await registry.register("my-orders-Order", SCHEMA) == 7
    [(_, _, body)] = server.asked
    assert json.loads(body["schema"]) == SCHEMA
    assert body["schemaType"] == "AVRO"
    assert registry.address(7) == f"{server.url}/schemas/ids/7"


async def test_schemas_are_kept_for_ever(server, registry):
    guid = "0b5c1c5e-3ba9-4f2e-9d1c-0f3a5b7c9d1e"
    server.answers["GET /schemas/ids/7"] = (200, json.dumps({"schema": json.dumps(SCHEMA)}).encode())
    server.answers[f"GET /schemas/guids/{guid}"] = (200, json.dumps({"schema": '"string"'}).encode())
    for _ in range(2):
        assert await registry.schema(7) == SCHEMA
        assert await registry.schema(guid) == "string"
    assert len(server.asked) == 2


async def test_versions_come_oldest_first(server, registry):
    server.answers["GET /subjects/a%2Fb-Order/versions"] = (200, b"[3, 1]")
    for number in (1, 3):
        body = {"version": number, "schema": json.dumps({**SCHEMA, "name": f"V{number}"})}
        server.answers[f"GET /subjects/a%2Fb-Order/versions/{number}"] = (200, json.dumps(body).encode())
    assert [one["name"] for one in await registry.versions("a/b-Order")] == ["V1", "V3"]


async def test_an_unknown_subject_has_no_versions(registry):
    assert await registry.versions("nowhere-Order") == []


async def test_only_the_registry_s_own_not_found_is_permanent(server, registry):
    server.answers["GET /schemas/ids/7"] = (404, b'{"error_code": 40403, "message": "Schema not found"}')
    with pytest.raises(SchemaNotFoundError, match="schema 7 is not in the registry"):
        await registry.schema(7)
    for stranger in (b"<html>not here</html>", b"[]", b'{"error_code": 404, "message": "HTTP 404 Not Found"}'):
        server.answers["GET /schemas/ids/8"] = (404, stranger)
        with pytest.raises(RegistryUnavailableError, match="gave no answer about schema 8: HTTP 404"):
            await registry.schema(8)


@pytest.mark.parametrize("answer", [b"<html>no such page</html>", b"[]", b'{"error_code": 404}'])
async def test_a_guid_that_is_not_found_is_permanent_for_many_registries_have_no_guids(server, registry, answer):
    server.answers["GET /schemas/guids/00000000-0000-0000-0000-000000000001"] = (404, answer)
    with pytest.raises(SchemaNotFoundError, match="is not in the registry"):
        await registry.schema("00000000-0000-0000-0000-000000000001")


@pytest.mark.parametrize("status", [409, 422])
async def test_a_refusal_carries_the_registry_s_own_words(server, registry, status):
    server.answers[POST] = (status, b'{"error_code": 409, "message": "reader lacks field x"}')
    with pytest.raises(
        IncompatibleSchemaError, match=r"schema Order of subject my-orders-Order: HTTP \d+ reader lacks"
    ):
        await registry.register("my-orders-Order", SCHEMA)


@pytest.mark.parametrize("status", [401, 403])
async def test_denied_access_is_a_matter_of_settings(server, registry, status):
    server.answers["GET /schemas/ids/7"] = (status, b"")
    with pytest.raises(ConfigurationError, match="CHOREO_REGISTRY_USER"):
        await registry.schema(7)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_passing_trouble_is_told_as_such(server, registry, status):
    server.answers["GET /schemas/ids/7"] = (status, b'{"message": "busy"}')
    with pytest.raises(RegistryUnavailableError, match=f"HTTP {status} busy"):
        await registry.schema(7)


@pytest.mark.parametrize("body", [b"<html>login</html>", b"{}", b"[]", b""])
async def test_a_page_that_is_no_registry_s_is_no_answer(server, registry, body):
    server.answers["GET /schemas/ids/7"] = (200, body)
    with pytest.raises(RegistryUnavailableError):
        await registry.schema(7)


async def test_no_server_is_passing_trouble(server):
    server.server_close()
    registry = HttpRegistry(server.url)
    with pytest.raises(RegistryUnavailableError, match="ConnectError"):
        await registry.register("my-orders-Order", SCHEMA)
    await registry.aclose()


async def test_a_server_that_does_not_answer_in_time_is_passing_trouble(server, monkeypatch):
    let_go = threading.Event()

    def hang() -> Answer:
        let_go.wait(30)
        return 500, b""

    server.answers["GET /schemas/ids/7"] = hang
    monkeypatch.setattr(http_module, "_TIMEOUT", 0.05)
    registry = HttpRegistry(server.url)
    with pytest.raises(RegistryUnavailableError, match="ReadTimeout"):
        await registry.schema(7)
    let_go.set()
    await registry.aclose()


async def test_what_failed_is_asked_again(server, registry):
    server.answers["GET /schemas/ids/7"] = (503, b"")
    with pytest.raises(RegistryUnavailableError):
        await registry.schema(7)
    server.answers["GET /schemas/ids/7"] = (200, json.dumps({"schema": json.dumps(SCHEMA)}).encode())
    assert await registry.schema(7) == SCHEMA


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


async def test_credentials_come_from_the_address_and_are_never_shown(server):
    registry = open_registry(server.url.replace("//", "//me:s%3Acret@"))
    with pytest.raises(SchemaNotFoundError) as error:
        await registry.schema(7)
    assert server.asked[0][1] == basic("me", "s:cret")
    assert "cret" not in str(error.value) + registry.address(7)
    await registry.aclose()


async def test_credentials_come_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("CHOREO_REGISTRY_USER", "me")
    monkeypatch.setenv("CHOREO_REGISTRY_PASSWORD", "secret")
    registry = open_registry(server.url)
    with pytest.raises(SchemaNotFoundError):
        await registry.schema(7)
    assert server.asked[0][1] == basic("me", "secret")
    await registry.aclose()
