"""librdkafka's mock cluster, in a process of its own: taking it apart can wait for ever (librdkafka 2.16), killing it cannot.

python -m tests.servers.mock_kafka    # prints its bootstrap address and runs until its input ends
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def mock_kafka() -> Iterator[str]:
    """`host:port` list of a mock cluster."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.servers.mock_kafka"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def main() -> None:
    """Be the cluster, as long as somebody holds the other end of the input."""
    from confluent_kafka import Producer

    keeper = Producer({"test.mock.num.brokers": "1", "bootstrap.servers": "mock", "log_level": "0"})
    brokers = keeper.list_topics(timeout=10).brokers.values()
    sys.stdout.write(",".join(f"{broker.host}:{broker.port}" for broker in brokers) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
