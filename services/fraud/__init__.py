"""Fraud: every card transaction gets a verdict within a tenth of a second. Start with README.md."""

from services.fraud import cases, scorer, verdicts

services = [scorer.scorer, verdicts.verdicts, cases.cases]
