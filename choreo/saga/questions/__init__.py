"""All that can be asked about sagas: `Questions`. The command line and HTTP ask nothing that this does not answer."""

from choreo.saga.questions.asking import Questions, Shown, Verified
from choreo.saga.questions.naming import Found
from choreo.saga.questions.records import Told
from choreo.saga.questions.stats import Funnel, Stats, TypeStats
from choreo.saga.questions.watching import Change

__all__ = ["Change", "Found", "Funnel", "Questions", "Shown", "Stats", "Told", "TypeStats", "Verified"]
