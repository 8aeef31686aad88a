"""Claims: adjudicated in a fixed order inside one service; what reacts to the decision is free. Start with README.md."""

from services.claims import adjudication, archive, notices, reporting

services = [adjudication.adjudication, archive.archive, reporting.reporting, notices.notices]
