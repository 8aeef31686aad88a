"""Signing up: a new user gets a greeting and a profile, and is counted. The smallest useful choreography; docs/tutorial.md builds it."""

from services.signup import analytics, emails, profiles

services = [emails.emails, profiles.profiles, analytics.analytics]
