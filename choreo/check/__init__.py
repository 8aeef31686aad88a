"""The static rules."""
