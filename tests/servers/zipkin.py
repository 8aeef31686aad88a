"""A real Zipkin on 127.0.0.1, without a container.

In Python: `with ZipkinServer() as zipkin: use(zipkin.spans_url)`. By hand: `python -m tests.servers.zipkin`.
Needs Java 17 or newer; the server comes from Maven Central once, into ~/.cache/choreo.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import urllib.request
from typing import Any

from tests.servers import jvm
from tests.servers.downloads import file, java
from tests.servers.process import Server, free_ports, listens

VERSION = "3.4.4"


class ZipkinServer(Server):
    """One Zipkin with its spans in memory; `spans_url` is where they are sent to."""

    name = "zipkin"

    def __init__(self) -> None:
        self._java = java()
        self._jar = file(f"io.zipkin:zipkin-server:{VERSION}:jar:exec", f"zipkin-server-{VERSION}-exec.jar", "zipkin")
        super().__init__()
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}"
        self.spans_url = f"{self.url}/api/v2/spans"

    def command(self) -> list[str]:
        """The server's command line."""
        settings = [f"QUERY_PORT={self._port}", "SELF_TRACING_ENABLED=false"]
        return ["env", *settings, self._java, "-Xmx300m", *jvm.QUICK, "-jar", str(self._jar)]

    def ready(self) -> bool:
        """Whether it answers."""
        return listens(self._port) and self.ask("/health").get("status") == "UP"

    def ask(self, path: str) -> Any:
        """What its API says; an empty answer while it starts."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}", timeout=5) as answer:  # noqa: S310 - http, our own
                return json.loads(answer.read())
        except OSError:
            return {}

    def traces(self, service: str) -> list[list[dict[str, Any]]]:
        """The traces that a service has spans in."""
        found: list[list[dict[str, Any]]] = self.ask(f"/api/v2/traces?serviceName={service}&limit=100&lookback=3600000")
        return found


def main() -> None:
    """Start a Zipkin, print its address, run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ZipkinServer() as zipkin:
        print(zipkin.url, flush=True)  # noqa: T201 - the address is this program's output
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
