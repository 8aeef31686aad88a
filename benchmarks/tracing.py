"""What do spans and metrics cost, beside the same service without?

    python benchmarks/tracing.py [--store sqlite|postgres] [--json]

`off` is the handler of `throughput.py`, over orders without trace headers, with metrics as they always are; `uncounted` the
same with every count left out; `carried` the same over orders with trace headers, which are passed on, no tracer provider
being there. `one` and `all` have a provider whose spans go through OpenTelemetry's own batch processor to an exporter that
drops them, over orders of which one in a hundred, or each, is sampled. Contestants take turns over the same real broker. The
ratios are medians over the rounds; that for the same CPU time says the same on a machine that others use too.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from contextlib import ExitStack
from statistics import median
from typing import Any

import options
from bench import PARTITIONS, Bench, Contestant, Run
from throughput import note

_NAMES = ("uncounted", "off", "carried", "one", "all")
_SAMPLED = {"carried": 0.01, "one": 0.01, "all": 1.0}
_CHUNK = 1000


class TracedBench(Bench):
    """A bench whose orders lie in the log three times: without traces, and with some of them or all sampled."""

    def _prepared(self, contestant: Contestant) -> dict[str, Any]:
        told = super()._prepared(contestant)
        share = _SAMPLED.get(contestant.name)
        if share is None:
            return told
        topic = f"{told['orders']}-{contestant.name}"
        if topic not in self._filled:
            asyncio.run(self._copy(told["log"], told["orders"], topic, share))
            self._filled.add(topic)
        return told | {"orders": topic}

    async def _copy(self, url: str, topic: str, target: str, share: float) -> None:
        from choreo.log import NewRecord, Topic, open_log

        async with open_log(url) as log:
            await log.create_topics([Topic(name=target, partitions=PARTITIONS)])
            reader, producer, left = log.consumer([topic]), log.producer(), self.events
            while left:
                records = await reader.poll(_CHUNK)
                left -= len(records)
                await producer.append(
                    [
                        NewRecord(target, each.key, each.value, [*each.headers, ("traceparent", _trace(share))])
                        for each in records
                    ]
                )
            await reader.close()
            await producer.close()


def _trace(share: float) -> bytes:
    flags = int(random.random() < share)
    return f"00-{random.getrandbits(128):032x}-{random.getrandbits(64) | 1:016x}-{flags:02x}".encode()


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    with ExitStack() as stack:
        bench = TracedBench(arguments.events, stack, arguments.kafka)
        store = "sqlite:///{folder}/{{service}}.db"
        if arguments.store == "postgres":
            from tests.servers.postgres import PostgresServer

            store = stack.enter_context(PostgresServer()).url
        runs: dict[str, list[Run]] = {}
        for number in range(arguments.rounds):
            for name in _NAMES if number % 2 else reversed(_NAMES):
                contestant = Contestant(name, (sys.executable, "traced_service.py", name), store)
                runs.setdefault(name, []).append(bench.run(contestant))
                run = runs[name][-1]
                note(f"round {number + 1}: {name} {arguments.events / run.wall:,.0f} orders/s, {run.cpu:.2f} CPU s")
    pairs = (("off", "uncounted"), ("carried", "off"), ("one", "carried"), ("one", "off"), ("all", "off"))
    return {
        "orders_per_second": {name: arguments.events / min(run.wall for run in runs[name]) for name in _NAMES},
        "ratio": {f"{one} of {other}": _ratio(runs[one], runs[other], "wall") for one, other in pairs},
        "ratio_per_cpu_second": {f"{one} of {other}": _ratio(runs[one], runs[other], "cpu") for one, other in pairs},
    }


def _ratio(mine: list[Run], others: list[Run], what: str) -> float:
    """The median over the rounds, whose runs followed one another: what else went on was nearly the same."""
    return median(getattr(other, what) / getattr(one, what) for one, other in zip(mine, others, strict=True))


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    arguments = parser.parse_args()
    report = measure(arguments)
    rates = (f"{name:12} {rate:,.0f} orders/s" for name, rate in report["orders_per_second"].items())
    ratios = (
        f"{name:18} {ratio:.2f}, for the same CPU time {report['ratio_per_cpu_second'][name]:.2f}"
        for name, ratio in report["ratio"].items()
    )
    options.tell(arguments, report, [*rates, *ratios])


if __name__ == "__main__":
    main()
