"""The tracker: rebuilds every saga from the log, and keeps it up to date."""
