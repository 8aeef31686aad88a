"""A real Apache Kafka node (KRaft) on 127.0.0.1, without a container; `kafka_cluster` makes three of them.

In Python: `with KafkaServer() as kafka: use(kafka.bootstrap)`. By hand, for a broker to play with:

    python -m tests.servers.kafka            # prints its bootstrap address and runs until Ctrl+C

Needs Java 17 or newer; the jars come from Maven Central once, into ~/.cache/choreo.
"""

from __future__ import annotations

import base64
import contextlib
import signal
import subprocess
import sys
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers import jvm
from tests.servers.certificates import Authority
from tests.servers.downloads import jars, java
from tests.servers.process import Server, free_ports, listens
from tests.servers.proxy import Proxy

VERSION = "4.2.1"  # not 4.3 or 4.4, which may forget to end a transaction (docs/decisions/0014)
LOG4J = "2.25.4"  # the one Kafka brings, here bound to slf4j: without it a broker says nothing


class Membership(NamedTuple):
    """A node's place in its cluster: `voters` are the controller ports of all nodes, by node id."""

    cluster: str
    node: int
    voters: Mapping[int, int]


class Listener(NamedTuple):
    """One address of a node: the port it listens on, the port it tells clients to use, and the protocol."""

    port: int
    advertised: int
    protocol: str


class KafkaServer(Server):
    """One node, broker and controller both; alone unless it is a member of a cluster.

    Args:
        settings: broker settings that replace or join the usual ones.
        scram_users: users (name to password) of SCRAM-SHA-256 and -512. With any, the broker asks who one is and what
            one may do: `sasl_bootstrap` (SASL_PLAINTEXT), `sasl_ssl_bootstrap` and `ssl_bootstrap` (mutual TLS; the
            user is `CN=name`) are for users with ACLs, the plain listener is a super user's. `authority` is whom to trust.
        proxy: started by the caller; gets this broker as its target, and a listener that names it as its address: clients
            that begin at `proxy.address` stay behind it.
        membership: the node's place in a cluster.
        heap: the Java heap's limit.
        lasting: whether its own speed counts, as in benchmarks and chaos; others start quicker and stay slower.
        classes: the option that says which classes it begins with; those that an earlier run has left, unless given.
    """

    name = "kafka"
    notices = 1.0
    """Its controller may expel a broker whose heartbeats were missing, itself too, until the next ones come; who asks for a
    controller in between would hear that there is none."""

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        scram_users: Mapping[str, str] | None = None,
        proxy: Proxy | None = None,
        membership: Membership | None = None,
        heap: str = "1G",
        *,
        lasting: bool = False,
        classes: list[str] | None = None,
    ) -> None:
        kafka = jars(f"org.apache.kafka:kafka_2.13:{VERSION}", f"kafka-{VERSION}")
        logging = jars(f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}", f"log4j-slf4j-impl-{LOG4J}")
        self._java, self._libs, self._heap = java(), f"{kafka}/*:{logging}/*", heap
        self._options = jvm.LASTING if lasting else jvm.QUICK
        super().__init__()
        self._users = dict(scram_users or {})
        self._member = membership or Membership(new_cluster_id(), 1, {1: free_ports(1)[0]})
        self._listeners = self._addresses(proxy)
        self._port = self._listeners["PLAINTEXT"].port
        self.bootstrap = self._address("PLAINTEXT")
        lines = self._settings() | (self._guard() if self._users else {}) | dict(settings or {})
        self._properties = self.folder / "server.properties"
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        self._classes = [] if lasting else classes
        if self._classes is None:
            self._classes = jvm.loaded_classes(self._java, f"kafka-{VERSION}", lambda first: KafkaServer(classes=first))

    @property
    def node_id(self) -> int:
        """Its id in the cluster."""
        return self._member.node

    @property
    def sasl_bootstrap(self) -> str:
        """Where users log in without TLS."""
        return self._address("SASL_PLAINTEXT")

    @property
    def sasl_ssl_bootstrap(self) -> str:
        """Where users log in with TLS."""
        return self._address("SASL_SSL")

    @property
    def ssl_bootstrap(self) -> str:
        """Where users show certificates."""
        return self._address("SSL")

    def _addresses(self, proxy: Proxy | None) -> dict[str, Listener]:
        guarded = ["SASL_PLAINTEXT", "SASL_SSL", "SSL"] if self._users else []
        names = ["PLAINTEXT", *guarded]
        listeners = {name: Listener(port, port, name) for name, port in zip(names, free_ports(len(names)), strict=True)}
        if proxy is not None:
            (proxy.target,) = free_ports(1)
            listeners["PROXIED"] = Listener(proxy.target, proxy.port, "PLAINTEXT")
        return listeners

    def _address(self, listener: str) -> str:
        return f"127.0.0.1:{self._listeners[listener].port}"

    def _settings(self) -> dict[str, str]:
        controllers = {node: f"127.0.0.1:{port}" for node, port in self._member.voters.items()}
        bound = [f"{name}://127.0.0.1:{each.port}" for name, each in self._listeners.items()]
        protocols = [f"{name}:{each.protocol}" for name, each in self._listeners.items()]
        copies = str(len(controllers))
        return {
            "process.roles": "broker,controller",
            "node.id": str(self._member.node),
            "controller.quorum.voters": ",".join(f"{node}@{address}" for node, address in controllers.items()),
            "listeners": ",".join([*bound, f"CONTROLLER://{controllers[self._member.node]}"]),
            "advertised.listeners": ",".join(
                f"{name}://127.0.0.1:{each.advertised}" for name, each in self._listeners.items()
            ),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": ",".join(["CONTROLLER:PLAINTEXT", *protocols]),
            "log.dirs": str(self.folder / "logs"),
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": str(len(controllers) // 2 + 1),
            "min.insync.replicas": str(len(controllers) // 2 + 1),
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": "1",
            **_SMALL,
        }

    def _guard(self) -> dict[str, str]:
        """Logins, certificates and access control."""
        self.authority = Authority(self.folder)
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        logins = {
            f"listener.name.{listener}.{mechanism}.sasl.jaas.config": scram
            for listener in ("sasl_plaintext", "sasl_ssl")
            for mechanism in ("scram-sha-256", "scram-sha-512")
        }
        return {
            **logins,
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.authority.issue("broker")),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.certificate),
            "listener.name.ssl.ssl.client.auth": "required",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def _format(self) -> None:
        users = [
            argument
            for name, password in self._users.items()
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        tool = ["kafka.tools.StorageTool", "format", "-t", self._member.cluster, "-c", str(self._properties)]
        subprocess.run([*self._jvm(), *tool, *users], check=True, capture_output=True, cwd=self.folder)

    def _jvm(self, *options: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"
        return [self._java, *self._options, *self._classes, logging, *options, "-cp", self._libs]

    def start(self) -> KafkaServer:
        """Start it, on a new or on its old folder, and wait until it serves requests."""
        if not (self.folder / "logs").exists():
            self._format()
        return super().start()

    def command(self) -> list[str]:
        """The broker's command line."""
        return [*self._jvm(f"-Xmx{self._heap}", "-Xms128m"), "kafka.Kafka", str(self._properties)]

    def ready(self) -> bool:
        """Whether the broker answers a metadata request, and is a member of its cluster."""
        if not listens(self._port):
            return False
        with contextlib.suppress(KafkaException):
            quiet = {"bootstrap.servers": self.bootstrap, "log_level": "0"}
            return self._member.node in AdminClient(quiet).list_topics(timeout=5).brokers
        return False


def new_cluster_id() -> str:
    """As `StorageTool random-uuid` makes it."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


_SMALL = {
    "num.partitions": "6",
    "auto.create.topics.enable": "false",
    # An idle controller writes a record twice a second otherwise, and every broker reads it.
    "metadata.max.idle.interval.ms": "5000",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    # A killed broker may register again only when its old session has ended: 9 s by default.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "group.min.session.timeout.ms": "1000",
    # KIP-848 groups take these two from the broker; its own defaults mean 45 s until a dead member is noticed.
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "500",
}

_LOG4J = """\
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


def main() -> None:
    """Start a broker, print its address, run until interrupted."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with KafkaServer() as kafka:
        print(kafka.bootstrap, flush=True)  # noqa: T201 - the address is this program's output
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    main()
