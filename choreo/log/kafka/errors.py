"""librdkafka's error codes as choreo's errors: what passes, what is refused for good, what another instance took."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from choreo.errors import LogError, LogUnavailableError, NotOwnerError, UnknownTopicError


def _codes(names: str) -> frozenset[int]:
    return frozenset(getattr(KafkaError, name) for name in names.split())


NO_ANSWER = _codes("_TRANSPORT _TIMED_OUT")
UNKNOWN_TOPIC = _codes("UNKNOWN_TOPIC_OR_PART _UNKNOWN_TOPIC _UNKNOWN_PARTITION")
TOO_LARGE = _codes("MSG_SIZE_TOO_LARGE RECORD_LIST_TOO_LARGE")
_NOT_OWNER = _codes(
    "UNKNOWN_MEMBER_ID ILLEGAL_GENERATION STALE_MEMBER_EPOCH FENCED_MEMBER_EPOCH FENCED_INSTANCE_ID _ASSIGNMENT_LOST"
    " _FENCED PRODUCER_FENCED INVALID_PRODUCER_EPOCH"
)
_REFUSED = _codes(
    "UNSUPPORTED_VERSION _UNSUPPORTED_FEATURE INCONSISTENT_GROUP_PROTOCOL INVALID_GROUP_ID INVALID_SESSION_TIMEOUT"
    " GROUP_MAX_SIZE_REACHED UNSUPPORTED_ASSIGNOR POLICY_VIOLATION INVALID_CONFIG INVALID_REPLICATION_FACTOR"
    " INVALID_PARTITIONS INVALID_RECORD INVALID_TIMESTAMP TOPIC_EXCEPTION _INVALID_ARG"
)
_LOGIN = "check security.protocol, sasl.mechanism, sasl.username and sasl.password"
_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "grant it Describe and Read or Write on the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "grant it Read on the group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "grant it Create on the cluster (to produce before Kafka 3.0: IdempotentWrite)",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "grant it Describe and Write on the transactional id",
    KafkaError.SASL_AUTHENTICATION_FAILED: _LOGIN,
    KafkaError.UNSUPPORTED_SASL_MECHANISM: _LOGIN,
    KafkaError._AUTHENTICATION: _LOGIN,  # noqa: SLF001 - librdkafka's own codes begin with an underscore
}


class RebalancingError(LogUnavailableError):
    """The group is changing hands just now; a commit is taken again in a moment."""


def explained(error: KafkaError, what: str, who: str) -> LogError:
    """The choreo error that says what `error` means for `what`, done by the principal `who`.

    A code not known to be permanent counts as passing: waiting loses nothing.
    """
    code, why = error.code(), error.str()
    if code in _NOT_OWNER:
        return NotOwnerError(what, why=why, remedy="another instance has taken over: start again from its progress")
    if code in _DENIED:
        return LogError(f"{what} is refused to {who}", why=why, remedy=_DENIED[code])
    if code == KafkaError.REBALANCE_IN_PROGRESS:
        return RebalancingError(what, why=why, remedy="passing trouble: repeat")
    if code in UNKNOWN_TOPIC:
        return UnknownTopicError(what, why=why, remedy="create it: choreo topics create")
    if code in _REFUSED or error.fatal():
        return LogError(what, why=why, remedy="the same would be refused again; see the broker's log")
    return LogUnavailableError(what, why=why, remedy="passing trouble: repeat")


def as_choreo(error: Exception, what: str, who: str) -> Exception:
    """A client's exception explained; any other as it is."""
    return explained(error.args[0], what, who) if isinstance(error, KafkaException) else error
