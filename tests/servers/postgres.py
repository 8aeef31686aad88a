"""A real PostgreSQL on 127.0.0.1, without a container.

In Python: `with PostgresServer() as postgres: use(postgres.url)`. By hand, for a database to play with:

    python -m tests.servers.postgres         # prints its address and runs until Ctrl+C

Needs the server's own programs (Debian: `apt-get install postgresql`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from tests.servers.downloads import ServerMissingError
from tests.servers.process import Server, free_ports, listens

USER, PASSWORD = "choreo", "open-sesame"
_UNPRIVILEGED = "postgres"


class PostgresServer(Server):
    """One database server; what it acknowledges is on disk (`fsync` stays on)."""

    name = "postgres"

    def __init__(self, *settings: str) -> None:
        """Takes server settings, written `name=value`."""
        self._bin = _programs()
        super().__init__()
        (self.port,) = free_ports(1)
        self._settings = settings
        if os.geteuid() == 0:
            shutil.chown(self.folder, _UNPRIVILEGED, _UNPRIVILEGED)
        self._make_cluster()

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _make_cluster(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        arguments = ["--username", USER, "--pwfile", str(password), "--auth", "scram-sha-256", "--no-sync"]
        command = [*_as_user(), f"{self._bin}/initdb", "--pgdata", str(self.folder / "data"), "--locale", "C.UTF-8"]
        subprocess.run([*command, *arguments], check=True, capture_output=True, cwd=self.folder)

    def command(self) -> list[str]:
        """The server's command line."""
        settings = [
            f"port={self.port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={self.folder}", *self._settings
        ]  # fmt: skip
        options = [part for setting in settings for part in ("-c", setting)]
        return [*_as_user(), f"{self._bin}/postgres", "-D", str(self.folder / "data"), *options]

    def ready(self) -> bool:
        """Whether it lets us in."""
        with contextlib.suppress(psycopg.OperationalError):
            if listens(self.port):
                psycopg.connect(self.url, connect_timeout=5).close()
                return True
        return False

    def stop(self) -> None:
        """End it politely, without waiting for those who are connected."""
        self._signal(signal.SIGINT)
        super().stop()

    def kill(self) -> None:
        """End it at once, with the processes that serve its connections: they would keep a new one from starting."""
        served = self._children()
        super().kill()
        for pid in served:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        super()._signal(number)
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            for pid in self._children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _children(self) -> list[int]:
        if self._process is None:
            return []
        with contextlib.suppress(FileNotFoundError):
            return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]
        return []


def _programs() -> Path:
    """The folder with the server's programs; Debian keeps them out of PATH, one folder a version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if initdb := shutil.which("initdb"):
        return Path(initdb).resolve().parent
    raise ServerMissingError("PostgreSQL's server programs are not installed (apt-get install postgresql)")


def _as_user() -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={_UNPRIVILEGED}", f"--regid={_UNPRIVILEGED}", "--clear-groups"]


def main() -> None:
    """Start a server, print its address, run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with PostgresServer() as postgres:
        print(postgres.url, flush=True)  # noqa: T201 - the address is this program's output
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
