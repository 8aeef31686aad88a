"""librdkafka's error codes as choreo's errors: what passes, what is refused for good, what another instance took."""

from __future__ import annotations

import re
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException

from choreo.errors import AccessError, LogError, LogUnavailableError, NotOwnerError, UnknownTopicError
from choreo.log.kafka.rights import Kind, Right


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
_LOGIN = _codes("SASL_AUTHENTICATION_FAILED UNSUPPORTED_SASL_MECHANISM ILLEGAL_SASL_STATE _AUTHENTICATION")
_DENIED: dict[int, Kind] = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional-id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "topic",  # a producer that may write to no topic at all
}
_REMEDIES = (  # by a part of librdkafka's own sentence
    (
        "certificate verify failed",
        "set ssl.ca.location to the certificate of the authority that issued the broker's, and use an address that it names",
    ),
    ("connecting to a PLAINTEXT", "the port speaks no TLS: take another port, or leave SSL out of security.protocol"),
    ("SSL alert", "the broker wants a certificate it trusts: set ssl.certificate.location and ssl.key.location"),
    ("Disconnected", "the port may want TLS or a login: check security.protocol"),
    (
        "Failed to get committed offsets",  # librdkafka tells neither that they are unstable nor why
        "repeat; if all else is answered for minutes, a transaction may never have ended: kafka-transactions.sh find-hanging",
    ),
    ("Broken pipe", "the port may want TLS or a login: check security.protocol"),
)
_FRAME = re.compile(
    r"^(?:\[thrd:\S+\]: )?(?:\S+/(?:bootstrap|\d+): )?"  # the thread and the broker
    r"|error:\w+:SSL routines::|, verify that ssl\.ca\.location.*"
    r"| \(after \d+ms in state \w+.*\)$"
)
"""What librdkafka and OpenSSL write around a reason."""


class RebalancingError(LogUnavailableError):
    """The group is changing hands just now; a commit is taken again in a moment."""


def explained(error: KafkaError, what: str, who: str, *rights: Right) -> LogError:
    """The choreo error that says what `error` means for `what`, done by the principal `who`.

    A code not known to be permanent counts as passing: waiting loses nothing.

    Args:
        rights: those that `what` needs; one of them is lacking if access is denied.
    """
    code, why = error.code(), plain(error.str())
    if code == KafkaError._GAPLESS_GUARANTEE and "Topic authorization failed" in why:  # noqa: SLF001 - librdkafka's
        code = KafkaError.TOPIC_AUTHORIZATION_FAILED  # what broke a gapless producer is told in words only
    if code in _NOT_OWNER:
        return NotOwnerError(what, why=why, remedy="another instance has taken over: start again from its progress")
    if code in _DENIED:
        return _denied(_DENIED[code], what, why, who, rights)
    if code in _LOGIN:
        remedy = "check security.protocol, sasl.mechanism, sasl.username and sasl.password"
        return LogError(f"{what}: the broker refuses {who}", why=why, remedy=remedy)
    if code in UNKNOWN_TOPIC:
        return UnknownTopicError(what, why=why, remedy="create it: choreo topics create")
    if code in _REFUSED or error.fatal():
        return LogError(what, why=why, remedy="the same would be refused again; see the broker's log")
    passing = RebalancingError if code == KafkaError.REBALANCE_IN_PROGRESS else LogUnavailableError
    return passing(what, why=why, remedy=remedy_for(why) or "passing trouble: repeat")


def _denied(kind: Kind, what: str, why: str, who: str, rights: Sequence[Right]) -> AccessError:
    lacking = next((right for right in rights if right.kind == kind), None)
    if lacking is None:
        return AccessError(f"{what}: principal {who} is refused", why=why, remedy="grant it: kafka-acls --add")
    lacks = f"{what}: principal {who} lacks {lacking.operation.upper()} on {kind} {lacking.name}"
    return AccessError(lacks, remedy=lacking.command(who))


def plain(why: str) -> str:
    """The client's reason without its frame."""
    return _FRAME.sub("", why)


def remedy_for(why: str) -> str:
    """What helps against trouble with a connection, if its reason tells."""
    return next((remedy for part, remedy in _REMEDIES if part in why), "")


def as_choreo(error: Exception, what: str, who: str, *rights: Right) -> Exception:
    """A client's exception explained; any other as it is."""
    return explained(error.args[0], what, who, *rights) if isinstance(error, KafkaException) else error
