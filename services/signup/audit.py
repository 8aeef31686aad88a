"""What must come of registered users, and whether it has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from services.books import differences, rows
from services.signup.events import UserRegistered

COUNTED = ("UserRegistered", "GreetingSent", "ProfileCreated")


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
    sent = rows(stores, "signup-emails", "SELECT email, text FROM outgoing")
    made = rows(stores, "signup-profiles", "SELECT user_id, handle FROM profiles")
    counted = dict(rows(stores, "signup-analytics", "SELECT what, n FROM counts"))
    return [
        *differences("greetings to", Counter(sent), Counter(greetings)),
        *differences("profiles of", Counter(made), Counter(pages)),
        *differences("counted", counted, dict.fromkeys(COUNTED, len(registered))),
    ]
