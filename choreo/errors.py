"""Every error choreo raises, in one place.

Each message is one line that names the thing, the reason and the remedy: it is read at night.
"""

from __future__ import annotations

from collections.abc import Sequence


class ChoreoError(Exception):
    """Base of every error choreo raises.

    Args:
        what: the thing and what is wrong with it, as one clause.
        why: the reason, when `what` does not already say it.
        remedy: what the reader can do about it.
    """

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        message = f"{what}: {why}" if why else what
        super().__init__(f"{message} ({remedy})" if remedy else message)


class DeclarationError(ChoreoError):
    """An event class, handler or service is declared wrongly. Raised at import."""


class ConfigurationError(ChoreoError):
    """A setting, an address or a combination of them cannot work. Raised at start."""


class FilterError(ConfigurationError):
    """A filter of sagas cannot be read.

    Attributes:
        at: the place of what is wrong, counted in characters from 0.
    """

    def __init__(self, at: int, what: str, *, why: str = "", remedy: str = "") -> None:
        self.at = at
        super().__init__(f"the filter cannot be read at character {at + 1}: {what}", why=why, remedy=remedy)


class UnknownSagaError(ChoreoError):
    """No saga has this name, or more than one could be meant."""


class UndeclaredEmissionError(ChoreoError):
    """A handler returned something its return annotation does not name."""


# --- wire ---------------------------------------------------------------------------------------------------------


class WireError(ChoreoError):
    """Base of what can go wrong between an event and a record."""


class DecodeError(WireError):
    """These bytes will never become an event: garbage, a wrong schema, an invalid header. Permanent."""


class EncodeError(WireError):
    """This event cannot become a record: a value that its schema does not allow. Permanent."""


class SchemaNotFoundError(WireError):
    """The registry answered, and it does not know this schema id. Permanent."""


class SchemaNotCachedError(WireError):
    """A record's writer schema is not in memory yet; load it, then decode again."""

    def __init__(self, schema_id: int | str) -> None:
        self.schema_id = schema_id
        super().__init__(
            f"schema {schema_id} is not loaded yet", remedy="await Codec.load(schema_id), then decode again"
        )


class RegistryUnavailableError(WireError):
    """The registry gave no answer. Passing: waiting and asking again is right."""


class IncompatibleSchemaError(WireError):
    """The registry or the compatibility rules refuse a schema."""


# --- log ----------------------------------------------------------------------------------------------------------


class LogError(ChoreoError):
    """Base of what can go wrong with the log."""


class LogUnavailableError(LogError):
    """The log gave no answer or cannot take records now (broker down, disk full). Passing: repeat."""


class AccessError(LogError):
    """The log does not let this principal do it. An operator can grant it: a service waits for that."""


class RecordTooLargeError(LogError):
    """A record is larger than the log accepts. Permanent for this record."""


class UnknownTopicError(LogError):
    """A topic or partition does not exist."""


class NotOwnerError(LogError):
    """A commit named partitions that this consumer does not own any more."""


# --- store --------------------------------------------------------------------------------------------------------


class StoreError(ChoreoError):
    """Base of what can go wrong with a service's store."""


class StoreUnavailableError(StoreError):
    """The store gave no answer or cannot write now. Passing: repeat."""


class StoreMissingError(ConfigurationError):
    """There is no store there to be asked."""


class DeadlockError(StoreUnavailableError):
    """The database has ended one of several transactions that waited for each other; starting over is all it takes."""


class StoreOwnedError(StoreError):
    """The store belongs to another service."""


class FencedError(StoreError):
    """Another instance owns these partitions now; this transaction changed nothing.

    Attributes:
        partitions: the (topic, partition) pairs that are no longer this instance's.
    """

    def __init__(self, partitions: Sequence[tuple[str, int]]) -> None:
        self.partitions = tuple(partitions)
        names = ", ".join(f"{topic}/{partition}" for topic, partition in self.partitions)
        super().__init__(f"another instance has taken over {names}")


class ReleasedError(StoreError):
    """A key that records were to be parked behind has been released meanwhile: handle them. Passing: start over."""


class OvertakenError(StoreError):
    """Another instance has noted something of one of these sagas first: read its notes, decide anew. Passing: start over."""


class CopyError(StoreError):
    """Another instance has handled a copy of one of these events meanwhile; nothing was written."""
