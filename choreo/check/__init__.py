"""What a choreography's declarations give away before anything runs: static rules with stable codes."""

from choreo.check.finding import Finding, Place, Rule, Severity
from choreo.check.rules import RULES
from choreo.check.run import Report, check, check_apart

__all__ = ["RULES", "Finding", "Place", "Report", "Rule", "Severity", "check", "check_apart"]
