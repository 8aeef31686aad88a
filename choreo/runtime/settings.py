"""Settings from the environment: where the log, the stores and the schemas are."""

from __future__ import annotations

from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are and how they are run; each field is an environment variable `CHOREO_<FIELD>`.

    Attributes:
        log: `sqlite:///path`, `kafka://host:9092,host:9092` or `memory://`.
        store: the store of services that name none; `{service}` stands for the service's name.
        registry: a folder of `.avsc` files or the address of a Confluent-API registry.
        kafka: librdkafka settings by their own names; in the environment a JSON object.
        create_topics: whether missing topics are created at start; unless given, on embedded logs only.
        stop_grace: seconds that running handlers get to finish when the service is told to stop.
        max_in_flight: how many records one service instance holds at most, read and not yet done; fewer if they are large
            (about 32 MB of values).
        max_record_bytes: the largest value a record may have; topics must allow it (`max.message.bytes`).
        inbox_keep: how long it is remembered that an event has been handled, so that copies of it are dropped.
        saga_keep: how long is remembered what a service has done in a saga, from when it last mattered: from a deadline's
            time, or from when it was noted.
        tracker_store: where the tracker keeps what it knows: `sqlite:///path`, for one instance, or `postgresql://...`.
        tracker_keep: how long the tracker keeps a saga after its last change.
        tracker_token: what whoever asks the tracker over HTTP has to know; unless given, one is made at each start.
        health_port: where `choreo run` answers `/live` and `/ready`; unless given, nowhere. 0 is any free port.
        health_host: the address of the health port.
    """

    model_config = SettingsConfigDict(env_prefix="CHOREO_", frozen=True, extra="ignore")

    log: str = "sqlite:///.choreo/log.db"
    store: str = "sqlite:///.choreo/{service}.db"
    registry: str = "schemas"
    kafka: dict[str, str] = {}
    create_topics: bool | None = None
    stop_grace: float = 20.0
    max_in_flight: int = 2000
    max_record_bytes: int = 1_000_000
    inbox_keep: str = "7d"
    saga_keep: str = "90d"
    tracker_store: str = "sqlite:///.choreo/tracker.db"
    tracker_keep: str = "30d"
    tracker_token: str = ""
    health_port: int | None = None
    health_host: str = "127.0.0.1"

    def store_of(self, service: str, declared: str | None) -> str:
        """The address of a service's store: what it declares, else the general setting."""
        return (declared or self.store).replace("{service}", service)

    @property
    def creates_topics(self) -> bool:
        """Whether missing topics are created at start."""
        return not self.log.startswith("kafka://") if self.create_topics is None else self.create_topics
