"""What is lost, and what is doubled, when a contestant is killed (-9) in the middle of its work and started again?

    python benchmarks/killed.py [NAME ...] [--peers] [--json]

The contestants and the work of `throughput.py`. By default so many orders that also the fastest, who commit every 5 s,
have done so before they are killed. A payment is lost when it never comes, and doubled when two come that a reader cannot
tell to be one: with different event ids, or without any.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import options
from bench import Bench
from throughput import OWN, PEER_PROGRAMS, contestants, note


def measure(arguments: argparse.Namespace) -> dict[str, dict[str, int]]:
    report = {}
    with ExitStack() as stack:
        bench = Bench(arguments.events, stack, arguments.kafka)
        every = [*(name for name in OWN if name != "embedded"), *(PEER_PROGRAMS if arguments.peers else ())]
        for contestant in contestants(arguments.names or every, stack):
            lost, doubled = bench.killed(contestant)
            report[contestant.name] = {"lost": lost, "doubled": doubled}
            note(f"{contestant.name}: lost {lost}, doubled {doubled}")
    return report


def main() -> None:
    parser = options.parser(__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="as of throughput.py")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--peers", action="store_true", help="the other frameworks too")
    arguments = parser.parse_args()
    report = measure(arguments)
    head = [f"| of {arguments.events:,} orders | lost | doubled |", "|--|--:|--:|"]
    rows = (f"| {name} | {found['lost']:,} | {found['doubled']:,} |" for name, found in report.items())
    options.tell(arguments, report, [*head, *rows])


if __name__ == "__main__":
    main()
