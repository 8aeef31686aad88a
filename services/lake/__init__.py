"""The lake: a stream of clicks and nightly tables become tables that can be rebuilt from the log, byte for byte.

Two independent services; each has its own file, its own store and its own consumer group. Start with README.md.
"""

from services.lake import loader, reports
from services.lake.events import Clicked, DeliveryBegun, PagesDelivered

__all__ = ["Clicked", "DeliveryBegun", "PagesDelivered", "services"]

services = [loader.loader, reports.reports]
