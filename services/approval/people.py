"""Who decides for whom. A company would ask its directory."""

from __future__ import annotations

from decimal import Decimal

LIMIT = Decimal("500.00")
"""What anybody may spend without asking."""

_MANAGERS = {"ada": "grace", "alan": "grace", "grace": "edsger", "edsger": "barbara"}
_HEAD = "barbara"


def manager_of(person: str) -> str | None:
    """Whom to ask about this person's purchases; nobody about those of the head."""
    return None if person == _HEAD else _MANAGERS.get(person, _HEAD)


def manager_at(employee: str, level: int) -> str | None:
    """The person so many levels above an employee; None above the head."""
    person: str | None = employee
    for _ in range(level):
        person = manager_of(person) if person is not None else None
    return person
