"""The lake's contracts: each event, its topic and its key. The services share these and nothing else."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from choreo import Event, Failure


class Clicked(Event, topic="lake.clicks", key="visitor"):
    """Somebody has clicked. `at` is the visitor's time: it may come here a day late, from a phone that was off."""

    click_id: str
    visitor: str
    page: str
    at: datetime


class Page(BaseModel):
    """One row of the nightly table of pages."""

    model_config = ConfigDict(frozen=True)

    page: str
    section: str


class DeliveryBegun(Event, topic="lake.deliveries", key="day"):
    """The nightly table of a day is coming, in so many parts; it starts the saga of that day's delivery."""

    day: str
    parts: int


class PagesDelivered(Event, topic="lake.deliveries", key="day"):
    """One part of the nightly table."""

    day: str
    part: int
    pages: tuple[Page, ...]


class DayClosed(Event, topic="lake.days", key="day", ends="completed"):
    """The nightly table is complete and loaded, and so many clicks of the day were there by then."""

    day: str
    pages: int
    clicks: int


class DeliveryMissed(Failure, topic="lake.days", key="day", ends="failed"):
    """The nightly table is not complete after three hours; nothing of it was loaded."""

    day: str


class LateClicksLoaded(Event, topic="lake.late", key="day"):
    """So many clicks of a day came after it was closed. They are in the table."""

    day: str
    clicks: int
