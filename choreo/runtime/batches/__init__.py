"""Handlers that are called with many events at once: gathering them, calling, and finding the one that fails."""
