"""What must come of registered users, and whether it has."""

from __future__ import annotations

from collections.abc import Sequence

from services.evidence import differences, rows
from services.signup.events import UserRegistered


def users(seed: int, number: int) -> list[UserRegistered]:
    """`number` users; other seeds give others."""
    names = (f"User {seed} {place:05}" for place in range(1, number + 1))
    return [
        UserRegistered(user_id=f"u-{seed}-{place:05}", name=name, email=f"{place}@{seed}.example")
        for place, name in enumerate(names, 1)
    ]


def findings(stores: str, registered: Sequence[UserRegistered]) -> list[str]:
    """What is wrong in the services' stores, in words."""
    greetings = [(user.email, f"Welcome, {user.name}!") for user in registered]
    pages = [(user.user_id, user.name.lower().replace(" ", "-")) for user in registered]
    kinds = ("UserRegistered", "GreetingSent", "ProfileCreated") if registered else ()
    return [
        *differences("outgoing e-mail", rows(stores, "signup-emails", "SELECT email, text FROM outgoing"), greetings),
        *differences("profiles", rows(stores, "signup-profiles", "SELECT user_id, handle FROM profiles"), pages),
        *differences(
            "counted",
            rows(stores, "signup-analytics", "SELECT what, n FROM counts"),
            [(k, len(registered)) for k in kinds],
        ),
    ]
