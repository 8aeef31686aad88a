"""A small registry with the Confluent API that can be stopped and started again, for tests of what happens then."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import unquote

from tests.servers.process import free_ports


class RegistryServer:
    """Schemas in memory, kept over a stop.

    Attributes:
        url: its address, the same after a restart.
        asked: how many requests it has answered.
    """

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.asked = 0
        self._schemas: list[str] = []
        self._subjects: dict[str, list[int]] = {}
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Answer requests."""
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(answer(self.path, None))

            def do_POST(self) -> None:
                self._reply(answer(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

            def _reply(self, found: tuple[int, Any]) -> None:
                body = json.dumps(found[1]).encode()
                self.send_response(found[0])
                self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, path: str, body: Any) -> tuple[int, Any]:
        self.asked += 1
        parts = unquote(path).strip("/").split("/")
        if body is not None and parts[0] == "subjects":
            return 200, {"id": self._register(parts[1], body["schema"])}
        if parts[:2] == ["schemas", "ids"] and int(parts[2]) <= len(self._schemas):
            return 200, {"schema": self._schemas[int(parts[2]) - 1]}
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _register(self, subject: str, schema: str) -> int:
        if schema not in self._schemas:
            self._schemas.append(schema)
        number = self._schemas.index(schema) + 1
        self._subjects.setdefault(subject, []).append(number)
        return number
