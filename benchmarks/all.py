"""Every claim about performance, measured in one go: `make bench`. Prints it and writes results.md beside this file."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).parent
PROGRAMS = {
    "Throughput": ("throughput.py", "--peers"),
    "Lanes": ("lanes.py",),
    "What compensations and joins cost": ("sagas.py",),
    "What spans and metrics cost": ("tracing.py",),
    "How late deadlines are": ("deadlines.py",),
    "Batches": ("batch.py",),
    "Latency of a saga of five hops": ("latency.py",),
    "Verdicts on 2,000 card transactions a second": ("fraud.py",),
    "Files of light tenants beside a heavy one": ("ingest.py",),
    "A poison record": ("poison.py",),
    "Memory, and the cost of a full inbox": ("memory.py",),
    "The wire alone": ("wire.py",),
    "A test of the shop in a world of choreo.testing": ("world.py",),
    "The static check of a large choreography": ("check.py",),
    "What a kill (-9) in the middle costs": ("killed.py", "--peers"),
}


def main() -> None:
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    parts = [
        f"# Measured by `make bench`\n\n{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}; one Kafka broker on the same machine."
    ]
    for title, (program, *arguments) in PROGRAMS.items():
        done = subprocess.run(
            [sys.executable, HERE / program, *arguments], stdout=subprocess.PIPE, text=True, check=True
        )
        text = done.stdout.strip()
        parts.append(
            f"## {title}\n\n`benchmarks/{program}`\n\n" + (text if text.startswith("|") else f"```\n{text}\n```")
        )
        print(parts[-1], flush=True)
        (HERE / "results.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
