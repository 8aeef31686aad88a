"""Dead letters: read, grouped, shown, redriven, edited, discarded."""

from choreo.dlq.fold import Fold, Group, Selection, State
from choreo.dlq.letters import DeadLetter, Place, Resolution
from choreo.dlq.records import Reason
from choreo.dlq.redrive import DeadLetters, Pace, Report, dead_letters, original

__all__ = [
    "DeadLetter",
    "DeadLetters",
    "Fold",
    "Group",
    "Pace",
    "Place",
    "Reason",
    "Report",
    "Resolution",
    "Selection",
    "State",
    "dead_letters",
    "original",
]
