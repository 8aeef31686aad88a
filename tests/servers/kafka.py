"""A real one-node Apache Kafka (KRaft) on 127.0.0.1, without a container.

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

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from tests.servers.downloads import jars, java
from tests.servers.process import Server, free_ports, listens

VERSION = "4.3.0"
LOG4J = "2.25.4"  # the one Kafka brings, here bound to slf4j: without it a broker says nothing


class KafkaServer(Server):
    """One broker that is its own controller.

    Args:
        settings: broker settings that replace or join the ones below.
        scram_users: SCRAM-SHA-256 users (name to password); with any, `sasl_bootstrap` offers SASL_PLAINTEXT with
            access control, where only users with an ACL may do anything (the plain listener stays a super user's).
    """

    name = "kafka"

    def __init__(self, settings: Mapping[str, str] | None = None, scram_users: Mapping[str, str] | None = None) -> None:
        kafka = jars(f"org.apache.kafka:kafka_2.13:{VERSION}", f"kafka-{VERSION}")
        logging = jars(f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J}", f"log4j-slf4j-impl-{LOG4J}")
        self._java, self._libs = java(), f"{kafka}/*:{logging}/*"
        super().__init__()
        self._port, self._controller_port, self._sasl_port = free_ports(3)
        self._users = dict(scram_users or {})
        self.bootstrap = f"127.0.0.1:{self._port}"
        self.sasl_bootstrap = f"127.0.0.1:{self._sasl_port}"
        self._properties = self.folder / "server.properties"
        lines = self._settings() | dict(settings or {})
        self._properties.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
        (self.folder / "log4j2.properties").write_text(_LOG4J)
        self._format()

    def _settings(self) -> dict[str, str]:
        controller = f"127.0.0.1:{self._controller_port}"
        plain = f"PLAINTEXT://{self.bootstrap}"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{plain},CONTROLLER://{controller}",
            "advertised.listeners": plain,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "log.dirs": str(self.folder / "logs"),
            "num.partitions": "6",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
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
        if self._users:
            sasl = f"SASL_PLAINTEXT://{self.sasl_bootstrap}"
            settings |= {
                "listeners": f"{settings['listeners']},{sasl}",
                "advertised.listeners": f"{plain},{sasl}",
                "sasl.enabled.mechanisms": "SCRAM-SHA-256",
                "listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        return settings

    def _format(self) -> None:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")
        users = [
            argument
            for name, password in self._users.items()
            for argument in ("--add-scram", f"SCRAM-SHA-256=[name={name},password={password}]")
        ]
        subprocess.run(
            [*self._jvm(), "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._properties), *users],
            check=True,
            capture_output=True,
            cwd=self.folder,
        )

    def _jvm(self, *options: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder}/log4j2.properties"
        # The serial collector starts fewer threads than the default one: kind to a small machine that runs tests too.
        return [self._java, "-XX:+UseSerialGC", logging, *options, "-cp", self._libs]

    def command(self) -> list[str]:
        """The broker's command line."""
        return [*self._jvm("-Xmx1G", "-Xms256m"), "kafka.Kafka", str(self._properties)]

    def ready(self) -> bool:
        """Whether the broker answers a metadata request."""
        if not listens(self._port):
            return False
        with contextlib.suppress(KafkaException):
            quiet = {"bootstrap.servers": self.bootstrap, "log_level": "0"}
            return bool(AdminClient(quiet).list_topics(timeout=5).brokers)
        return False


# The serial collector starts fewer threads than the default one: kinder to a small machine that runs tests as well.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-Djava.awt.headless=true")

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
