"""How many events a second pass through one handler that emits one event, beside a loop written by hand?

    python benchmarks/throughput.py [NAME ...] [--peers] [--json]

Contestants take turns, each a process of its own, over the same orders in 4 partitions of the same real broker; the
best run of each counts, for the machine may be busy with other things in between. See `bench.py` for what is timed and
`job.py` for the work. `raw` is the base: the loop one writes by hand, at-least-once, without a store; choreo's, in the
same time, make every effect happen once. Peers that pass a thousand events a second, or fewer, get a tenth of the orders.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import Any

import options
from bench import HERE, Bench, Contestant, Run

PEERS = HERE / "peers"
PEERS_PYTHON = PEERS / ".venv" / "bin" / "python"
OWN = ("raw", "sqlite", "postgres", "transactional", "embedded")
PEER_PROGRAMS = {
    "faststream-confluent": ("faststream_peer.py", "confluent", "default"),
    "faststream-confluent-ack": ("faststream_peer.py", "confluent", "ack"),
    "faststream-confluent-fast": ("faststream_peer.py", "confluent", "fast"),
    "faststream-aiokafka": ("faststream_peer.py", "aiokafka", "default"),
    "faststream-aiokafka-ack": ("faststream_peer.py", "aiokafka", "ack"),
    "faststream-aiokafka-fast": ("faststream_peer.py", "aiokafka", "fast"),
    "aiokafka": ("aiokafka_peer.py",),
    "quix": ("quix_peer.py", "at-least-once"),
    "quix-exactly-once": ("quix_peer.py", "exactly-once"),
}

SLOW = frozenset(PEER_PROGRAMS) - {"quix", "quix-exactly-once"}


def contestants(names: list[str], stack: ExitStack) -> list[Contestant]:
    made = []
    for name in names:
        if name in PEER_PROGRAMS:
            program, *arguments = PEER_PROGRAMS[name]
            made.append(Contestant(name, (str(PEERS_PYTHON), str(PEERS / program), *arguments)))
        elif name == "raw":
            made.append(Contestant(name, (sys.executable, "by_hand.py")))
        elif name == "transactional":
            made.append(Contestant(name, (sys.executable, "by_choreo.py", "transactional")))
        else:
            store = "sqlite:///{folder}/{{service}}.db"
            if name == "postgres":
                from tests.servers.postgres import PostgresServer

                store = stack.enter_context(PostgresServer()).url
            made.append(Contestant(name, (sys.executable, "by_choreo.py", "store"), store, name == "embedded"))
    return made


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    names = arguments.names or [*OWN, *(PEER_PROGRAMS if arguments.peers else ())]
    with ExitStack() as stack:
        bench, runs = Bench(arguments.events, stack, arguments.kafka), dict[str, list[Run]]()
        entered = contestants([*dict.fromkeys(["raw", *names])], stack)
        for number in range(arguments.rounds):
            for contestant in entered:
                events = share(contestant.name, bench.events)
                runs.setdefault(contestant.name, []).append(bench.run(contestant, events))
                note(f"round {number + 1}: {contestant.name} {events / runs[contestant.name][-1].wall:,.0f}/s")
    report = {name: rates(share(name, arguments.events), those) for name, those in runs.items()}
    for those in report.values():
        those["ratio"] = those["events_per_second"] / report["raw"]["events_per_second"]
    return report


def share(name: str, events: int) -> int:
    """How many of the orders this contestant handles in a run."""
    return max(1, events // 10) if name in SLOW else events


def rates(events: int, runs: list[Run]) -> dict[str, float]:
    return {
        "events_per_second": events / min(run.wall for run in runs),
        "ratio": 0.0,
        "cpu_seconds_per_100k": min(run.cpu for run in runs) / events * 100_000,
    }


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def table(report: dict[str, Any]) -> str:
    """The report as a Markdown table."""
    lines = ["| | events/s | of the hand-written loop | CPU s per 100,000 events |", "|--|--:|--:|--:|"]
    lines += [
        f"| {name} | {those['events_per_second']:,.0f} | {those['ratio']:.2f} | {those['cpu_seconds_per_100k']:.2f} |"
        for name, those in report.items()
    ]
    return "\n".join(lines)


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(OWN)}, and the peers")
    parser.add_argument("--events", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contestant")
    parser.add_argument(
        "--peers", action="store_true", help="the other frameworks too (uv sync --project benchmarks/peers)"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {*OWN, *PEER_PROGRAMS}:
        parser.error(f"nobody is called {', '.join(unknown)}")
    report = measure(arguments)
    options.tell(arguments, report, [table(report)])


if __name__ == "__main__":
    main()
