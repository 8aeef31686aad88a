"""The contracts of signing up."""

from __future__ import annotations

from choreo import Event


class UserRegistered(Event, topic="signup.users", key="user_id"):
    """Somebody signed up; it starts the saga."""

    user_id: str
    name: str
    email: str


class GreetingSent(Event, topic="signup.emails", key="user_id"):
    """The welcome e-mail is on its way."""

    user_id: str
    email: str


class ProfileCreated(Event, topic="signup.profiles", key="user_id"):
    """The user has a page of their own."""

    user_id: str
    handle: str
