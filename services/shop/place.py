"""Places sample orders with shop services that run elsewhere: `python -m services.shop.place --orders 100`.

Where the log is, CHOREO_LOG says. The same seed places the same orders, so take another one for further orders.
"""

from __future__ import annotations

import argparse
import asyncio

import choreo
from choreo.observe.logs import configure_logging
from services.shop.orders_generator import orders
from services.trial import publish


async def main() -> None:
    """Publish the orders and say what was placed."""
    parser = argparse.ArgumentParser(prog="python -m services.shop.place", description=__doc__)
    parser.add_argument("--orders", type=int, default=100, help="how many")
    parser.add_argument("--seed", type=int, default=7, help="which ones")
    given = parser.parse_args()
    configure_logging(level="warning")
    placed = orders(given.seed, given.orders)
    async with choreo.connect(source="shop.place") as bus:
        await publish(bus, placed)
    print(f"placed {len(placed)} orders, {placed[0].order_id} to {placed[-1].order_id}")  # noqa: T201 - a command


if __name__ == "__main__":
    asyncio.run(main())
