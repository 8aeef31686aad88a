"""The tests' own proxy: what it passes on, holds back, cuts and refuses."""

import asyncio

import pytest

from tests.servers.process import free_ports
from tests.servers.proxy import Proxy


@pytest.fixture
async def echo():
    """A port where everything sent comes back."""

    async def answer(reader, writer):
        while data := await reader.read(1_000):
            writer.write(data)
        writer.close()

    (port,) = free_ports(1)
    async with await asyncio.start_server(answer, "127.0.0.1", port):
        yield port


@pytest.fixture
async def proxy(echo):
    with Proxy(echo) as proxy:
        yield proxy
        await asyncio.to_thread(proxy.cut)


async def said(connection, what):
    reader, writer = connection
    writer.write(what)
    async with asyncio.timeout(20):
        return await reader.readexactly(len(what))


async def test_it_passes_on_both_ways_and_to_the_end(proxy):
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    data = bytes(1_000_000)
    assert await said(connection, data) == data
    connection[1].close()


async def test_it_cuts_and_accepts_new_connections(proxy):
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await said(connection, b"a") == b"a"
    await asyncio.to_thread(proxy.cut)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await said(connection, b"b")
    connection[1].close()
    again = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await said(again, b"c") == b"c"
    again[1].close()
    assert proxy.connections == 2


async def test_it_refuses_until_restored(proxy):
    await asyncio.to_thread(proxy.refuse)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", proxy.port)
    await asyncio.to_thread(proxy.restore)
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await said(connection, b"a") == b"a"
    connection[1].close()


async def test_a_black_hole_holds_back_until_restored(proxy):
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await said(connection, b"a") == b"a"
    proxy.black_hole()
    connection[1].write(b"b")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await connection[0].read(1)
    await asyncio.to_thread(proxy.restore)
    async with asyncio.timeout(20):
        assert await connection[0].read(1) == b"b"
    connection[1].close()


async def test_it_delays_each_way(proxy):
    connection = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.delay(0.1)
    clock = asyncio.get_running_loop()
    begun = clock.time()
    assert await said(connection, b"a") == b"a"
    assert clock.time() - begun >= 0.2
    connection[1].close()
