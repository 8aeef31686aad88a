"""The log on Apache Kafka, by confluent-kafka (librdkafka)."""

from choreo.log.kafka.log import KafkaLog

__all__ = ["KafkaLog"]
