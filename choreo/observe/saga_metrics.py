"""What a tracker shows as metrics: sagas, what is owed in them, dead letters, and how far behind it is.

By itself, so that a service's `/metrics` shows nothing of it. Labels are types of first events, states, services, handlers, kinds and topics.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from prometheus_client import Counter, Gauge, Histogram

from choreo.observe.metrics import registry

_BOUNDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600)
_SAGA = ("type",)

_started = Counter("choreo_saga_started", "Sagas whose first event has been seen", _SAGA, registry=registry)
_ended = Counter(
    "choreo_saga_ended", "Sagas that have come to a state that ends them", ("type", "state"), registry=registry
)
_duration = Histogram(
    "choreo_saga_duration_seconds", "From a saga's first event to its end", ("type", "state"),
    registry=registry, buckets=_BOUNDS,
)  # fmt: skip
_active = Gauge("choreo_saga_active", "Sagas that have not ended, by state", ("type", "state"), registry=registry)
_owed = Gauge(
    "choreo_compensation_owed", "Effects of failed sagas that are not undone", ("service", "handler"), registry=registry
)
_letters = Gauge(
    "choreo_dead_letters_open", "Dead letters, neither redriven nor discarded", ("service", "kind"), registry=registry
)
_oldest = Gauge("choreo_dead_letters_oldest_age_seconds", "Age of the oldest of them", ("service",), registry=registry)
_lag = Gauge(
    "choreo_tracker_lag_seconds",
    "Age of the oldest record that the tracker has not taken in",
    ("topic",),
    registry=registry,
)
_events = Counter("choreo_tracker_records", "Records that the tracker has taken in", ("topic",), registry=registry)


def saga_started(first_type: str) -> None:
    """A saga that begins with an event of this type."""
    _started.labels(first_type).inc()


def saga_ended(first_type: str, state: str, seconds: float) -> None:
    """It has come to this state, and that ends it; told once for each saga, by who sees it live and not in a rebuild."""
    _ended.labels(first_type, state).inc()
    _duration.labels(first_type, state).observe(seconds)


def set_active(counts: Mapping[tuple[str, str], int]) -> None:
    """How many sagas of each type of first event are in each state; those not named are none any more."""
    _replace(_active, counts.items())


def set_owed(counts: Mapping[tuple[str, str], int]) -> None:
    """How many effects are to be undone, by service and name of the compensation."""
    _replace(_owed, counts.items())


def set_dead_letters(counts: Mapping[tuple[str, str], int], oldest: Mapping[str, float]) -> None:
    """How many are open by service and kind, and by service the age of the oldest in seconds."""
    _replace(_letters, counts.items())
    _replace(_oldest, [((service,), age) for service, age in oldest.items()])


def set_lag(seconds: Mapping[str, float]) -> None:
    """How far behind the tracker is, by topic."""
    _replace(_lag, [((topic,), lag) for topic, lag in seconds.items()])


def taken_in(topic: str, count: int) -> None:
    """The tracker has taken in so many records more."""
    _events.labels(topic).inc(count)


def _replace(gauge: Gauge, values: Iterable[tuple[Sequence[str], float]]) -> None:
    gauge.clear()
    for labels, value in values:
        gauge.labels(*labels).set(value)
