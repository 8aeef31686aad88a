"""The onboarding's contracts: each event, its topic and its key. The services share these and nothing else."""

from __future__ import annotations

from enum import StrEnum

from choreo import Event, Failure


class ClosedBecause(StrEnum):
    """Why an account is closed before it was ever used."""

    NAME_REFUSED = "name_refused"
    NOT_VERIFIED = "not_verified"
    NOT_READY = "not_ready"


class AccountRequested(Event, topic="onboarding.accounts", key="account_id"):
    """Somebody wants an account; it starts the saga."""

    account_id: str
    company: str
    email: str


class AccountVerified(Event, topic="onboarding.verifications", key="account_id"):
    """An administrator has looked at the account and is content. Published from outside, into the account's saga."""

    account_id: str
    administrator: str


class VerificationRefused(Event, topic="onboarding.verifications", key="account_id"):
    """A verification came for an account that is closed already, and changes nothing."""

    account_id: str
    administrator: str
    reason: str


class AccountActivated(Event, topic="onboarding.accounts", key="account_id", ends="completed"):
    """The account can be used: the good end."""

    account_id: str
    administrator: str


class AccountClosed(Failure, topic="onboarding.accounts", key="account_id", ends="failed"):
    """The account will not be used: the other end. Whoever did something for it undoes that now."""

    account_id: str
    because: ClosedBecause


class VerificationReminded(Event, topic="onboarding.reminders", key="account_id"):
    """Nobody has verified the account yet, and somebody should be told again."""

    account_id: str
    email: str
    company: str


class TenantCreated(Event, topic="onboarding.tenants", key="account_id"):
    """The company has its name and its place."""

    account_id: str
    tenant: str


class TenantRefused(Failure, topic="onboarding.tenants", key="account_id"):
    """The company cannot have this name; nothing was created."""

    account_id: str
    reason: str


class TenantDeleted(Event, topic="onboarding.tenants", key="account_id"):
    """The name that a closed account had is free again."""

    account_id: str
    tenant: str


class DatabaseProvisioned(Event, topic="onboarding.databases", key="account_id"):
    """The company's database is there, and empty."""

    account_id: str
    database: str


class DatabaseDropped(Event, topic="onboarding.databases", key="account_id"):
    """The database of a closed account is gone."""

    account_id: str
    database: str


class WelcomeSent(Event, topic="onboarding.welcomes", key="account_id"):
    """The company has a name and a database, and was told so. From now on an administrator is waited for."""

    account_id: str
    company: str
    email: str
