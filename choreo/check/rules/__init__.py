"""The rules, by what they are about; each group is a file."""

from choreo.check.rules import compensations, effects, failures, order, outcomes, reach, subscriptions

RULES = tuple(
    sorted(
        (
            rule
            for group in (subscriptions, reach, failures, compensations, order, outcomes, effects)
            for rule in group.RULES
        ),
        key=lambda rule: rule.code,
    )
)
