"""A server process: started, awaited, killed and restarted on the same folder and ports."""

from __future__ import annotations

import contextlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

START_TIMEOUT = 60.0


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, below the range the system takes for outgoing connections.

    A port of that range could be taken by a client between a kill and a restart; a client that keeps connecting to
    one while nobody listens can even be connected to itself.
    """
    first_outgoing = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    for port in random.sample(range(10_000, first_outgoing), 1_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                continue
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            return ports
    raise RuntimeError("no free ports below the outgoing range")


class Server:
    """One server process with its own temporary folder; a context manager that starts and removes it."""

    name = "server"
    notices = 0.0
    """Seconds until it knows that it has stood still; it may seem ready before."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"choreo-{self.name}-"))
        self.log_file = self.folder / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._stands_still = False

    def command(self) -> list[str]:
        """The command that runs the server in the foreground."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it serves requests now."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The id of the running process."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it serves requests. While somebody else has one of its ports, try again."""
        until = time.monotonic() + START_TIMEOUT
        while True:
            try:
                return self._start()
            except RuntimeError as error:
                if "Address already in use" not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(1.0)

    def _start(self) -> Self:
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        # The watchdog's input ends when this program does, even by SIGKILL: no server outlives its tests.
        self._watchdog = subprocess.Popen(
            ["sh", "-c", f"read _; kill -9 {self._process.pid}"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        process = self._process
        try:
            wait_until(lambda: process.poll() is not None or self.ready(), START_TIMEOUT)
        except TimeoutError:
            tail = self.log_tail()
            self.kill()
            raise RuntimeError(
                f"{self.name} did not serve requests within {START_TIMEOUT:.0f} s; its log ends:\n{tail}"
            ) from None
        if process.poll() is not None:
            tail = self.log_tail()
            self.kill()
            raise RuntimeError(f"{self.name} ended with code {process.returncode}; its log ends:\n{tail}")
        return self

    def stop(self) -> None:
        """End it politely (SIGTERM), after half a minute by SIGKILL."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL), its folder left as it is."""
        for process in (self._watchdog, self._process):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdin is not None:
                    process.stdin.close()
        self._process = self._watchdog = None
        self._stands_still = False

    def restart(self) -> None:
        """Start it again on the same folder and ports, ending it first if it runs."""
        self.stop()
        self.start()

    def ensure_running(self) -> None:
        """Start it if it does not run, and wait until it serves requests if it stood still."""
        if self._process is None:
            self.start()
        if self._stands_still:
            self.thaw()
            time.sleep(self.notices)
            wait_until(self.ready, START_TIMEOUT)

    def freeze(self) -> None:
        """Stop it from running without ending it (SIGSTOP)."""
        self._signal(signal.SIGSTOP)
        self._stands_still = True

    def thaw(self) -> None:
        """Undo `freeze`."""
        self._signal(signal.SIGCONT)
        self._stands_still = False

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of what it printed."""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exc: object) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds; TimeoutError if it never does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
