"""A real Apicurio Registry on 127.0.0.1 with its Confluent API, without a container.

In Python: `with ApicurioServer() as registry: use(registry.url)`. By hand: `python -m tests.servers.apicurio`.
Needs Java 17 or newer; the server comes from Maven Central once, into ~/.cache/choreo.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import urllib.request

from tests.servers import jvm
from tests.servers.downloads import archive, java
from tests.servers.process import Server, free_ports, listens

VERSION = "3.0.9"
_NAME = f"apicurio-registry-app-{VERSION}"


class ApicurioServer(Server):
    """One registry with its data in memory; `url` is where its Confluent API begins.

    Args:
        classes: the option that says which classes it begins with; those that an earlier run has left, unless given.
    """

    name = "apicurio"

    def __init__(self, classes: list[str] | None = None) -> None:
        self._java = java()
        artifact = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"
        self._home = archive(artifact, f"{_NAME}-all.tar.gz", "apicurio")
        super().__init__()
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat/v7"
        self._classes = jvm.loaded_classes(self._java, _NAME, ApicurioServer) if classes is None else classes

    def command(self) -> list[str]:
        """The registry's command line."""
        runner = next(self._home.rglob(f"{_NAME}-runner.jar"))
        settings = {
            "apicurio.storage.kind": "sql",
            "apicurio.storage.sql.kind": "h2",
            "quarkus.http.host": "127.0.0.1",
            "quarkus.http.port": str(self._port),
        }
        options = ["-Xmx400m", *jvm.QUICK, *self._classes, *(f"-D{name}={value}" for name, value in settings.items())]
        return [self._java, *options, "-jar", str(runner)]

    def ready(self) -> bool:
        """Whether its Confluent API answers."""
        if not listens(self._port):
            return False
        try:
            with urllib.request.urlopen(f"{self.url}/subjects", timeout=5) as answer:  # noqa: S310 - http, our own
                return bool(answer.status == 200)
        except OSError:
            return False


def main() -> None:
    """Start a registry, print its address, run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with ApicurioServer() as registry:
        print(registry.url, flush=True)  # noqa: T201 - the address is this program's output
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
