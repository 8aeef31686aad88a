"""Onboarding: from an account requested, over weeks and a person who looks at it, to one that is used or one that leaves nothing.

Four independent services; each has its own file, its own store and its own consumer group. Start with README.md.
"""

from services.onboarding import accounts, databases, mail, tenants
from services.onboarding.events import AccountRequested, AccountVerified

__all__ = ["AccountRequested", "AccountVerified", "services"]

services = [accounts.accounts, tenants.tenants, databases.databases, mail.mail]
