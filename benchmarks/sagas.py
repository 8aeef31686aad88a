"""What do compensations and joins cost, beside the same handler without?

    python benchmarks/sagas.py [--store sqlite|postgres] [--json]

`compensated` is the handler of `throughput.py` with a compensation declared that never runs: each event leaves one note of
what there is to undo. `join` waits for two events of each order and emits one; `two` are two handlers that take the same
two events, one of which emits. The two of a pair take turns over the same records of one real broker, one right after the
other; the median of their ratios counts, since a machine that others use too changes its pace from minute to minute. The
ratio for the same CPU time says the same of its work alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import uuid
from contextlib import ExitStack
from statistics import median
from typing import Any

import options
from bench import PARTITIONS, Bench, Contestant, Run
from throughput import note

_PAIRS = (("compensated", "plain"), ("join", "two"))
_CHUNK = 1000


async def fill_checks(bench: Bench) -> None:
    from saga_services import OrderChecked

    import choreo
    from choreo.log import Topic, open_log

    url = f"kafka://{bench.bootstrap}"
    async with open_log(url) as log:
        await log.create_topics([Topic(name=OrderChecked.contract.topics[0], partitions=PARTITIONS)])
        settings = choreo.Settings(log=url, registry=str(bench.folder / "schemas"))
        async with choreo.connect(settings, log=log) as bus:
            for start in range(0, bench.events, _CHUNK):
                numbers = range(start, min(bench.events, start + _CHUNK))
                await bus.publish_many(
                    [OrderChecked(order_id=f"order-{n:08}", total="119.94", checked_by="desk 7") for n in numbers]
                )


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["CHOREO_BENCH_CHECKS"] = f"bench-checks-{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        bench = Bench(arguments.events, stack, arguments.kafka)
        asyncio.run(fill_checks(bench))
        store = "sqlite:///{folder}/{{service}}.db"
        if arguments.store == "postgres":
            from tests.servers.postgres import PostgresServer

            store = stack.enter_context(PostgresServer()).url
        runs: dict[str, list[Run]] = {}
        for number in range(arguments.rounds):
            for name in [name for pair in _PAIRS for name in (pair if number % 2 else reversed(pair))]:
                contestant = Contestant(name, (sys.executable, "saga_services.py", name), store)
                runs.setdefault(name, []).append(bench.run(contestant))
                note(f"round {number + 1}: {name} {arguments.events / runs[name][-1].wall:,.0f} orders/s")
    rates = {name: arguments.events / min(run.wall for run in those) for name, those in runs.items()}
    ratios, per_cpu = {}, {}
    for one, other in _PAIRS:
        rounds = list(zip(runs[one], runs[other], strict=True))
        ratios[f"{one} of {other}"] = median(without.wall / with_it.wall for with_it, without in rounds)
        per_cpu[f"{one} of {other}"] = median(without.cpu / with_it.cpu for with_it, without in rounds)
    return {"orders_per_second": rates, "ratio": ratios, "ratio_per_cpu_second": per_cpu}


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    arguments = parser.parse_args()
    report = measure(arguments)
    rates = (f"{name:12} {rate:,.0f} orders/s" for name, rate in report["orders_per_second"].items())
    ratios = (
        f"{name:25} {ratio:.2f}, for the same CPU time {report['ratio_per_cpu_second'][name]:.2f}"
        for name, ratio in report["ratio"].items()
    )
    options.tell(arguments, report, [*rates, *ratios])


if __name__ == "__main__":
    main()
