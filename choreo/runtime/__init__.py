"""The runtime: one service instance at work."""
