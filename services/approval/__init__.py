"""Approval: a purchase above a limit waits for a manager, or the manager's manager, and has one outcome.

Three independent services; each has its own file, its own store and its own consumer group. Start with README.md.
"""

from services.approval import buying, desk, notices
from services.approval.events import ApprovalAnswered, PurchaseRequested

__all__ = ["ApprovalAnswered", "PurchaseRequested", "services"]

services = [desk.desk, buying.buying, notices.notices]
