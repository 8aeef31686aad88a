"""Three Kafka nodes on 127.0.0.1: replication factor 3, min.insync.replicas 2; each is killed, frozen and restarted alone.

In Python: `with KafkaCluster() as cluster: use(cluster.bootstrap); cluster.nodes[0].kill()`. By hand:

    python -m tests.servers.kafka_cluster    # prints its bootstrap addresses and runs until Ctrl+C
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.kafka import KafkaServer, Membership, new_cluster_id
from tests.servers.process import free_ports, wait_until
from tests.servers.proxy import Proxy

_IDS = (1, 2, 3)


class KafkaCluster:
    """Nodes 1, 2 and 3; `bootstrap` names them all.

    Args:
        settings: broker settings for all of them.
        proxies: started by the caller, one for each node; clients that begin at `proxied_bootstrap` stay behind them.
    """

    name = "kafka cluster"

    def __init__(self, settings: Mapping[str, str] | None = None, proxies: Iterable[Proxy] = ()) -> None:
        cluster, voters = new_cluster_id(), dict(zip(_IDS, free_ports(len(_IDS)), strict=True))
        self.proxies = list(proxies)
        self.nodes = [
            KafkaServer(settings, proxy=proxy, membership=Membership(cluster, node, voters), heap="384m")
            for node, proxy in zip(_IDS, self.proxies or [None] * len(_IDS), strict=True)
        ]
        self.bootstrap = ",".join(node.bootstrap for node in self.nodes)
        self.proxied_bootstrap = ",".join(proxy.address for proxy in self.proxies)

    def ensure_running(self) -> None:
        """Start and thaw what is down, and wait until every partition has all its copies again."""
        with ThreadPoolExecutor(len(_IDS)) as pool:  # one alone would wait in vain for a majority
            list(pool.map(KafkaServer.ensure_running, self.nodes))
        wait_until(self.in_sync, 60)

    def in_sync(self) -> bool:
        """Whether all nodes are members, and every partition has all its copies."""
        with contextlib.suppress(KafkaException):
            known = self._metadata()
            partitions = [each for topic in known.topics.values() for each in topic.partitions.values()]
            return len(known.brokers) == len(_IDS) and all(len(each.isrs) == len(each.replicas) for each in partitions)
        return False

    def leader_of(self, topic: str, partition: int = 0) -> KafkaServer:
        """The node that leads a partition now."""
        leader = self._metadata().topics[topic].partitions[partition].leader
        return next(node for node in self.nodes if node.node_id == leader)

    def _metadata(self) -> Any:
        return AdminClient({"bootstrap.servers": self.bootstrap, "log_level": "0"}).list_topics(timeout=5)

    def __enter__(self) -> Self:
        try:
            self.ensure_running()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for node in self.nodes:
            node.__exit__()


def main() -> None:
    """Start three nodes, print their addresses, run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with KafkaCluster() as cluster:
        print(cluster.bootstrap, flush=True)  # noqa: T201 - the addresses are this program's output
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
