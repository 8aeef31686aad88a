"""A TCP proxy on 127.0.0.1 that can spoil the connections through it: for Kafka (a broker has to advertise it) and PostgreSQL.

with Proxy(postgres_port) as proxy:
    connect(f"127.0.0.1:{proxy.port}")
    proxy.cut()                              # every connection is reset; new ones are welcome
    proxy.refuse(); proxy.restore()          # every connection is reset, new ones are refused
    proxy.black_hole(); proxy.restore()      # connections stay, and nothing comes through until they are restored
    proxy.delay(0.2)                         # seconds, each way
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Self

from tests.servers.process import free_ports

_CHUNK, _QUEUED = 64 * 1024, 64
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset instead of what is left


class Proxy:
    """Passes connections to `port` on to `target`, in a thread of its own.

    Args:
        target: a port of 127.0.0.1; may be set later.
    """

    def __init__(self, target: int = 0) -> None:
        self.target = target
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0
        """How many were accepted so far."""
        self._delay = 0.0
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._links: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    def cut(self) -> None:
        """Reset all connections."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Reset all connections and refuse new ones."""
        self._do(self._refuse())

    def black_hole(self) -> None:
        """Let nothing through; what is sent meanwhile comes after `restore`, as after a network's outage."""
        self._loop.call_soon_threadsafe(self._passing.clear)

    def delay(self, seconds: float) -> None:
        """Let everything come so much later, each way; 0 ends it."""
        self._delay = seconds

    def restore(self) -> None:
        """Accept and pass on as before."""
        self._delay = 0.0
        self._do(self._accept())

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy {self.port}", daemon=True)
        self._thread.start()
        self.restore()
        return self

    def __exit__(self, *exc: object) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _accept(self) -> None:
        self._passing.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._link, "127.0.0.1", self.port)

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _cut(self) -> None:
        links = list(self._links)
        for link in links:
            link.cancel()
        await asyncio.gather(*links, return_exceptions=True)
        for _ in range(10):  # closing a connection takes a few turns of the loop, which may be ended after this
            await asyncio.sleep(0)

    def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = self._loop.create_task(self._serve(reader, writer))
        self._links.add(task)
        task.add_done_callback(self._links.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that is cut before it has begun

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, both ways, until either side ends it or it is cut."""
        writers = [writer]
        try:
            await self._passing.wait()
            there, other = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(other)
            await self._both(self._pass(reader, other), self._pass(there, writer))
        except OSError:
            pass  # nobody listens there: the connection ends
        except asyncio.CancelledError:
            for each in writers:
                _reset(each)
            raise
        finally:
            for each in writers:
                each.close()

    async def _both(self, *ways: Coroutine[Any, Any, None]) -> None:
        tasks = [asyncio.ensure_future(way) for way in ways]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One way: what comes is queued with the time at which it is due."""
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_QUEUED)
        async with asyncio.TaskGroup() as group:  # a side that is gone ends the other task too
            group.create_task(self._send(queue, writer))
            data = b"?"
            while data:  # an empty one says that there is no more
                data = await reader.read(_CHUNK)
                await queue.put((self._loop.time() + self._delay, data))

    async def _send(self, queue: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        while True:
            due, data = await queue.get()
            await asyncio.sleep(due - self._loop.time())
            await self._passing.wait()
            if not data:
                return
            writer.write(data)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
