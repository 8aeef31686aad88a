"""Delivery: from a planned route to a parcel handed over, with hundreds of positions in between. Start with README.md."""

from services.delivery import dispatch, planning, recipients, tracking

services = [planning.planning, dispatch.dispatch, tracking.tracking, recipients.recipients]
