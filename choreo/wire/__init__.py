"""The wire: events to records and back, the schema registry, event ids."""

from choreo.wire.codec import Codec
from choreo.wire.ids import derive_event_id, inbox_key, new_event_id
from choreo.wire.registry import Registry, open_registry

__all__ = ["Codec", "Registry", "derive_event_id", "inbox_key", "new_event_id", "open_registry"]
